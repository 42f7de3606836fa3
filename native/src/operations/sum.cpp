#include "../operation.h"

namespace heinfer {

namespace {

constexpr std::size_t parts = 2;  // of a row, so that few rows keep two threads busy

class Sum final : public Operation {
  public:
    Sum(const SumOf& sum, const Constants& constants, bool scalar, bool resident, std::size_t n)
        : sum_(sum), constants_(constants), scalar_(scalar), resident_(resident), n_(n),
          row_constants_((sum.factors.size() + sum.plains) * (scalar ? 1 : n)) {}

    std::size_t phases() const override { return resident_ ? 1 : 2; }
    std::size_t tasks(std::size_t phase) const override {
        return phase + 1 < phases() ? constants_.count(sum_.block) : parts * sum_.out.rows;
    }
    Needs needs() const override {
        return needs_of(Code::sum, sum_.out.rows, sum_.out.polynomials, resident_ ? 0 : sum_.factors.size() + sum_.plains);
    }

    void perform(const Run& run, std::size_t phase, std::size_t task, std::size_t) const override {
        if (phase + 1 < phases()) {
            constants_.encode(sum_.block, task, run.row(sum_.scratch));
            return;
        }
        const std::size_t row = task / parts, start = task % parts * (n_ / parts);
        if (plain_pair()) {
            for (std::size_t i = 0; i < sum_.out.polynomials; ++i) {
                run.ring.kernels().add(modulus(run, row), n_ / parts, run.row(sum_.addends[0], i, row) + start,
                                       run.row(sum_.addends[1], i, row) + start, run.row(sum_.out, i, row) + start);
            }
            return;
        }
        // Two polynomials share the constants; a third one has terms of its own.
        for (std::size_t first = 0; first < sum_.out.polynomials; first += 2) dot(run, row, start, first);
    }

  private:
    struct Pointers {
        std::vector<const Word*> left[2], added[2];
    };

    bool plain_pair() const {
        if (!sum_.factors.empty() || sum_.plains || sum_.addends.size() != 2) return false;
        return sum_.addends[0].polynomials == sum_.out.polynomials &&
               sum_.addends[1].polynomials == sum_.out.polynomials;
    }

    const Modulus& modulus(const Run& run, std::size_t row) const { return run.ring.modulus(run.prime(sum_.out, row)); }

    void dot(const Run& run, std::size_t row, std::size_t start, std::size_t first) const {
        const std::size_t last = first + 1 < sum_.out.polynomials ? first + 1 : first;
        if (uniform(first, last)) {
            dot_pair(run, row, start, first, last);
        } else {
            dot_pair(run, row, start, first, first);
            dot_pair(run, row, start, last, last);
        }
    }

    /// Whether all operands have both polynomials or neither.
    bool uniform(std::size_t first, std::size_t last) const {
        for (const auto* values : {&sum_.factors, &sum_.addends}) {
            for (const Value& value : *values) {
                if ((value.polynomials > first) != (value.polynomials > last)) return false;
            }
        }
        return true;
    }

    void dot_pair(const Run& run, std::size_t row, std::size_t start, std::size_t first, std::size_t last) const {
        Pointers at;
        std::size_t terms = 0;
        for (std::size_t k = 0; k < sum_.factors.size(); ++k) {
            if (sum_.factors[k].polynomials <= first) continue;
            at.left[0].push_back(run.row(sum_.factors[k], first, row) + start);
            at.left[1].push_back(run.row(sum_.factors[k], last, row) + start);
            ++terms;
        }
        for (const Value& value : sum_.addends) {
            if (value.polynomials <= first) continue;
            at.added[0].push_back(run.row(value, first, row) + start);
            at.added[1].push_back(run.row(value, last, row) + start);
        }
        // Terms that lack a third polynomial come last: make_sum has ordered them, so their constants are skipped.
        const std::size_t stride = sum_.factors.size() + sum_.plains;
        const Word* block = resident_ ? constants_.resident(sum_.block) : run.row(sum_.scratch);
        const Word* constants = block + row * row_constants_ + (scalar_ ? 0 : start * stride);
        const Dot d{terms,
                    first == 0 ? sum_.plains : 0,
                    stride,
                    at.added[0].size(),
                    {at.left[0].data(), at.left[1].data()},
                    {at.added[0].data(), at.added[1].data()},
                    constants,
                    scalar_,
                    {run.row(sum_.out, first, row) + start,
                     last == first ? nullptr : run.row(sum_.out, last, row) + start}};
        run.ring.kernels().dot(modulus(run, row), n_ / parts, d);
    }

    SumOf sum_;
    const Constants& constants_;
    bool scalar_, resident_;
    std::size_t n_, row_constants_;
};

}  // namespace

std::unique_ptr<Operation> make_sum(const SumOf& sum, const Constants& constants, bool scalar, bool resident,
                                    std::size_t n) {
    return std::make_unique<Sum>(sum, constants, scalar, resident, n);
}

}  // namespace heinfer
