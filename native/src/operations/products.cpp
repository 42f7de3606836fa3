#include "key_switch.h"

namespace heinfer {

namespace {

void multiply_row(const Run& run, const Value& x, const Value& y, std::size_t row, Word* const* out) {
    const Word* left[2] = {run.row(x, 0, row), run.row(x, 1, row)};
    const Word* right[2] = {run.row(y, 0, row), run.row(y, 1, row)};
    run.ring.kernels().multiply(run.ring.modulus(row), run.ring.n(), left, right, out);
}

class Product final : public Operation {
  public:
    Product(const Value& out, const Value& x, const Value& y) : out_(out), x_(x), y_(y) {}

    std::size_t phases() const override { return 1; }
    std::size_t tasks(std::size_t) const override { return out_.rows; }
    void perform(const Run& run, std::size_t, std::size_t row, std::size_t) const override {
        Word* out[3] = {run.row(out_, 0, row), run.row(out_, 1, row), run.row(out_, 2, row)};
        multiply_row(run, x_, y_, row, out);
    }

  private:
    Value out_, x_, y_;
};

/// Switches the third polynomial of a product, which is made on the way where only its factors are given.
class Relinearization final : public Operation {
  public:
    Relinearization(const Value& out, const Value& product, std::size_t scratch)
        : out_(out), product_(product), factors_{}, multiply_(false), switch_(out.rows, {0}, false, true, scratch) {}

    Relinearization(const Value& out, const Value& x, const Value& y, std::size_t scratch)
        : out_(out), product_{scratch, out.rows, 3, false}, factors_{x, y}, multiply_(true),
          switch_(out.rows, {0}, false, true, scratch + 3 * out.rows) {}

    std::size_t phases() const override { return 3; }
    std::size_t tasks(std::size_t phase) const override {
        return phase == 0 ? out_.rows : phase == 1 ? switch_.places() : 2 * out_.rows;
    }
    Needs needs() const override {
        return needs_of(multiply_ ? Code::multiply_relinearize : Code::relinearize, out_.rows, 2, 0);
    }
    std::vector<std::array<std::size_t, 2>> keys() const override { return switch_.keys(); }

    void perform(const Run& run, std::size_t phase, std::size_t task, std::size_t thread) const override {
        if (phase == 0) {
            if (multiply_) {
                Word* out[3] = {run.row(product_, 0, task), run.row(product_, 1, task), run.row(product_, 2, task)};
                multiply_row(run, factors_[0], factors_[1], task, out);
            }
            switch_.take_digit(run, task, run.row(product_, 2, task));
        } else if (phase == 1) {
            switch_.multiply(run, task, thread, [&](std::size_t j) { return run.row(product_, 2, j); });
        } else {
            const std::size_t row = task % out_.rows, half = task / out_.rows;
            switch_.divide(run, 0, half, row, run.row(product_, half, row), nullptr, nullptr, run.row(out_, half, row),
                           thread);
        }
    }

  private:
    Value out_, product_, factors_[2];
    bool multiply_;
    KeySwitch switch_;
};

}  // namespace

std::unique_ptr<Operation> make_product(const Value& out, const Value& x, const Value& y) {
    return std::make_unique<Product>(out, x, y);
}

std::unique_ptr<Operation> make_relinearization(const Value& out, const Value& input, std::size_t scratch) {
    return std::make_unique<Relinearization>(out, input, scratch);
}

std::unique_ptr<Operation> make_relinearized_product(const Value& out, const Value& x, const Value& y,
                                                     std::size_t scratch) {
    return std::make_unique<Relinearization>(out, x, y, scratch);
}

}  // namespace heinfer
