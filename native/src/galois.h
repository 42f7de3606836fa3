// Automorphisms X -> X^g of the ring, as moves of words.
#pragma once
#include <cstddef>
#include <vector>

#include "kernels.h"

namespace heinfer {

/// Galois element of a rotation by `step` slots to the left (SEAL, util/galois.cpp), 1 for step 0.
std::size_t galois_element(std::size_t n, std::size_t step);
std::size_t inverse_element(std::size_t n, std::size_t element);

/// An automorphism on transformed rows.
///
/// The value at index i is the polynomial's at psi^(2 brv(i) + 1). The upper bits of i are the lower bits of the
/// exponent, which g maps among themselves: whole tiles go to whole tiles, and within a tile the words change places
/// in one of 16 ways.
class MoveTable {
  public:
    MoveTable(std::size_t n, std::size_t element);
    Moves moves() const { return {from_.data(), orders_.data()}; }

  private:
    std::vector<Word> from_, orders_;
};

/// All ones for the coefficients whose sign the automorphism changes.
std::vector<Word> sign_mask(std::size_t n, std::size_t element);

}  // namespace heinfer
