// CKKS encoding: slots to the coefficients of a polynomial, and those to residues.
#pragma once
#include <complex>
#include <cstddef>
#include <vector>

#include "ring.h"

namespace heinfer {

class Encoder {
  public:
    explicit Encoder(std::shared_ptr<const Ring> ring);

    /// round(scale * value) for the coefficients of the polynomial with these n / 2 slots; std::range_error when one
    /// has 2^125 or more.
    std::vector<double> coefficients(const double* slots, double scale) const;
    /// The transformed row of coefficients modulo a prime, n words.
    void row(const double* coefficients, std::size_t prime, Word* out) const;
    /// The same of what `narrow` has made.
    void row(const Word* narrowed, std::size_t prime, Word* out) const;
    /// Coefficients as words, 2^31 added to each: any of 32 bits with a sign. False when one does not fit.
    static bool narrow(const std::vector<double>& coefficients, Word* out);
    /// round(scale * value) modulo a prime: the word that all of a scalar's row consists of.
    Word scalar(double value, double scale, std::size_t prime) const;

    const Ring& ring() const { return *ring_; }

  private:
    std::shared_ptr<const Ring> ring_;
    std::vector<std::complex<double>> roots_;  ///< e^(-2 pi i k / 2n), k < n
    std::vector<std::size_t> place_, mirror_;  ///< where slot j and its conjugate go before the Fourier transform
};

}  // namespace heinfer
