#include "key_switch.h"

namespace heinfer {

namespace {

std::vector<std::size_t> steps_of(const std::vector<Target>& targets) {
    std::vector<std::size_t> steps;
    for (const Target& target : targets) steps.push_back(target.step);
    return steps;
}

class Rotations final : public Operation {
  public:
    Rotations(const Value& input, const std::vector<Target>& targets, bool exact, std::size_t scratch)
        : input_(input), targets_(targets), extended_(targets.front().out.extended),
          switch_(input.rows, steps_of(targets), exact, !extended_, scratch) {}

    std::size_t phases() const override { return 3; }
    std::size_t tasks(std::size_t phase) const override {
        return phase == 0 ? input_.rows : phase == 1 ? switch_.places() : targets_.size() * 2 * rows();
    }
    Needs needs() const override { return needs_of(Code::rotate, input_.rows, 2, targets_.size()); }
    std::vector<std::array<std::size_t, 2>> keys() const override { return switch_.keys(); }

    void perform(const Run& run, std::size_t phase, std::size_t task, std::size_t thread) const override {
        if (phase == 0) {
            switch_.take_digit(run, task, run.row(input_, 1, task));
        } else if (phase == 1) {
            switch_.multiply(run, task, thread, [&](std::size_t j) { return run.row(input_, 1, j); });
        } else {
            const std::size_t row = task % rows(), half = task / rows() % 2;
            finish(run, task / rows() / 2, half, row, thread);
        }
    }

  private:
    std::size_t rows() const { return targets_.front().out.rows; }

    void finish(const Run& run, std::size_t number, std::size_t half, std::size_t row, std::size_t thread) const {
        const Target& target = targets_[number];
        const Moves moves = run.ring.automorphism(target.step).forward.moves();
        Word* out = run.row(target.out, half, row);
        const bool special = row == input_.rows;
        const Word* before = half == 0 && !special ? run.row(input_, 0, row) : nullptr;
        if (extended_) {
            const std::size_t prime = run.prime(target.out, row);
            const Modulus& modulus = run.ring.modulus(prime);
            const Factor factor = modulus.factor(run.ring.residue(run.ring.special(), prime));
            run.ring.kernels().scale_move(modulus, run.ring.n(), before, factor, switch_.sum(run, number, half, row),
                                          &moves, out);
        } else {
            const Word* after = target.has_after ? run.row(target.after, half, row) : nullptr;
            switch_.divide(run, number, half, row, before, &moves, after, out, thread);
        }
    }

    Value input_;
    std::vector<Target> targets_;
    bool extended_;
    KeySwitch switch_;
};

}  // namespace

std::unique_ptr<Operation> make_rotations(const Value& input, const std::vector<Target>& targets, bool exact,
                                          std::size_t scratch) {
    return std::make_unique<Rotations>(input, targets, exact, scratch);
}

}  // namespace heinfer
