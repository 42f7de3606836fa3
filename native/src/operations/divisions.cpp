#include "../operation.h"

namespace heinfer {

namespace {

/// Divides by one prime, rounded: for each polynomial (x - [x]) / q, where [x] is the centred residue modulo q.
class Division final : public Operation {
  public:
    Division(const Value& out, const Value& input, std::size_t scratch)
        : out_(out), input_(input), scratch_(scratch) {}

    std::size_t phases() const override { return 2; }
    std::size_t tasks(std::size_t phase) const override { return phase == 0 ? out_.polynomials : out_.polynomials * out_.rows; }
    Needs needs() const override { return needs_of(Code::divide, out_.rows, out_.polynomials, 0); }

    void perform(const Run& run, std::size_t phase, std::size_t task, std::size_t thread) const override {
        const Ring& ring = run.ring;
        const std::size_t of = run.prime(input_, input_.rows - 1);
        if (phase == 0) {
            ring.kernels().inverse(ring.transform(of), run.row(input_, task, input_.rows - 1), ring.modulus(of).half,
                                   remainder(run, task));
            return;
        }
        const std::size_t row = task % out_.rows, polynomial = task / out_.rows;
        Word* rounding = run.own_row(thread, 0);
        ring.kernels().forward(ring.transform(row), remainder(run, polynomial), ring.lift_rounded(of, row), rounding);
        ring.kernels().divide(ring.modulus(row), ring.n(), run.row(input_, polynomial, row), rounding,
                              ring.inverse(of, row), nullptr, nullptr, nullptr, run.row(out_, polynomial, row));
    }

  private:
    Word* remainder(const Run& run, std::size_t polynomial) const {
        return run.row(scratch_ + polynomial);
    }

    Value out_, input_;
    std::size_t scratch_;
};

/// Divides by P, then by q_l, in one: ((x - [x]_P) / P - [y]_l) / q_l = (x - ([x]_P + P [y]_l)) / (P q_l), where y is
/// the first quotient, needed modulo q_l only. Word for word what two divisions give, for two transforms more than one.
class DoubleDivision final : public Operation {
  public:
    DoubleDivision(const Value& out, const Value& input, std::size_t scratch)
        : out_(out), input_(input), scratch_(scratch) {}

    std::size_t phases() const override { return 2; }
    std::size_t tasks(std::size_t phase) const override { return phase == 0 ? out_.polynomials : out_.polynomials * out_.rows; }
    Needs needs() const override { return needs_of(Code::divide_twice, out_.rows, out_.polynomials, 0); }

    void perform(const Run& run, std::size_t phase, std::size_t task, std::size_t thread) const override {
        if (phase == 0) {
            take_remainders(run, task, thread);
        } else {
            divide(run, task / out_.rows, task % out_.rows, thread);
        }
    }

  private:
    void take_remainders(const Run& run, std::size_t polynomial, std::size_t thread) const {
        const Ring& ring = run.ring;
        const std::size_t special = ring.special(), last = out_.rows;
        ring.kernels().inverse(ring.transform(special), run.row(input_, polynomial, last + 1),
                               ring.modulus(special).half, remainder(run, polynomial, 0));
        Word* quotient = run.own_row(thread, 0);
        ring.kernels().forward(ring.transform(last), remainder(run, polynomial, 0), ring.lift_rounded(special, last),
                               quotient);
        ring.kernels().divide(ring.modulus(last), ring.n(), run.row(input_, polynomial, last), quotient,
                              ring.inverse(special, last), nullptr, nullptr, nullptr, quotient);
        ring.kernels().inverse(ring.transform(last), quotient, ring.modulus(last).half, remainder(run, polynomial, 1));
    }

    void divide(const Run& run, std::size_t polynomial, std::size_t row, std::size_t thread) const {
        const Ring& ring = run.ring;
        const Modulus& modulus = ring.modulus(row);
        const std::size_t n = ring.n(), special = ring.special(), last = out_.rows;
        // Both remainders are shifted by half of their primes; as residues: r_P - h_P + P (r_l - h_l).
        const Word shift = modulus.multiply(ring.residue(special, row), ring.modulus(last).half % modulus.q);
        const Word offset = (2 * modulus.q - ring.modulus(special).half % modulus.q - shift) % modulus.q;
        Word *both = run.own_row(thread, 0), *reduced = run.own_row(thread, 1);
        ring.kernels().scale_move(modulus, n, remainder(run, polynomial, 0), modulus.one, nullptr, nullptr, reduced);
        ring.kernels().scale_move(modulus, n, remainder(run, polynomial, 1), modulus.factor(ring.residue(special, row)),
                                  reduced, nullptr, both);
        ring.kernels().forward(ring.transform(row), both, {false, offset, nullptr}, both);
        const Factor inverse = modulus.factor(
            modulus.multiply(ring.inverse(special, row).value, ring.inverse(last, row).value));
        ring.kernels().divide(modulus, n, run.row(input_, polynomial, row), both, inverse, nullptr, nullptr, nullptr,
                              run.row(out_, polynomial, row));
    }

    Word* remainder(const Run& run, std::size_t polynomial, std::size_t which) const {
        return run.row(scratch_ + 2 * polynomial + which);
    }

    Value out_, input_;
    std::size_t scratch_;
};

class Extension final : public Operation {
  public:
    Extension(const Value& out, const Value& input) : out_(out), input_(input) {}

    std::size_t phases() const override { return 1; }
    std::size_t tasks(std::size_t) const override { return out_.polynomials * out_.rows; }
    void perform(const Run& run, std::size_t, std::size_t task, std::size_t) const override {
        const std::size_t row = task % out_.rows, polynomial = task / out_.rows, prime = run.prime(out_, row);
        const Modulus& modulus = run.ring.modulus(prime);
        const Word* from = prime == run.ring.special() ? nullptr : run.row(input_, polynomial, row);
        run.ring.kernels().scale_move(modulus, run.ring.n(), from,
                                      modulus.factor(run.ring.residue(run.ring.special(), prime)), nullptr, nullptr,
                                      run.row(out_, polynomial, row));
    }

  private:
    Value out_, input_;
};

}  // namespace

std::unique_ptr<Operation> make_division(const Value& out, const Value& input, std::size_t scratch) {
    return std::make_unique<Division>(out, input, scratch);
}

std::unique_ptr<Operation> make_double_division(const Value& out, const Value& input, std::size_t scratch) {
    return std::make_unique<DoubleDivision>(out, input, scratch);
}

std::unique_ptr<Operation> make_extension(const Value& out, const Value& input) {
    return std::make_unique<Extension>(out, input);
}

}  // namespace heinfer
