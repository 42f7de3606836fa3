// Switching a polynomial to the client's key: digits, their transforms modulo each prime, inner products with a key.
//
// For a rotation the key is stored moved back (keys.h), so that all sums are of unmoved words; the move comes last.
// Division by the special prime commutes with it: rounding is symmetric, as the prime is odd.
#pragma once
#include "../operation.h"

namespace heinfer {

class KeySwitch {
  public:
    /// `digits`: data primes of the polynomial; `targets`: steps of the keys (0: relinearization).
    KeySwitch(std::size_t digits, std::vector<std::size_t> targets, bool exact, bool divide, std::size_t scratch);

    std::vector<std::array<std::size_t, 2>> keys() const;

    /// Phase 1: digit j of the polynomial whose row j is given.
    void take_digit(const Run& run, std::size_t j, const Word* row) const;
    /// Phase 2, for each place below places(): all that is modulo one prime; the special one first, its sums are
    /// transformed back when they are to be divided by. `polynomial(j)` is row j of the polynomial.
    template <class Polynomial>
    void multiply(const Run& run, std::size_t place, std::size_t thread, Polynomial polynomial) const {
        const std::size_t row = place == 0 ? digits_ : place - 1;
        std::vector<const Word*> transformed(digits_);
        for (std::size_t j = 0; j < digits_; ++j) {
            transformed[j] = j == row ? polynomial(j) : transform(run, j, row, thread);
        }
        sum_up(run, row, transformed);
    }
    std::size_t places() const { return digits_ + 1; }
    /// The sum for a target: half 0 or 1, modulo prime number `row` (digits: the special one).
    Word* sum(const Run& run, std::size_t target, std::size_t half, std::size_t row) const;
    /// Phase 3: out = moved(sum / special prime + before) + after; uses one of the thread's rows.
    void divide(const Run& run, std::size_t target, std::size_t half, std::size_t row, const Word* before,
                const Moves* moves, const Word* after, Word* out, std::size_t thread) const;

    std::size_t digits() const { return digits_; }

  private:
    const Word* transform(const Run& run, std::size_t j, std::size_t row, std::size_t thread) const;
    void sum_up(const Run& run, std::size_t row, const std::vector<const Word*>& transformed) const;
    std::size_t prime(const Run& run, std::size_t row) const { return row == digits_ ? run.ring.special() : row; }

    std::size_t digits_;
    std::vector<std::size_t> targets_;
    bool exact_, divide_;
    std::size_t scratch_;
};

}  // namespace heinfer
