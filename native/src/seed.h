// The uniform halves of keys and ciphertexts, expanded from seeds as SEAL does it.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels.h"

namespace heinfer {

using Seed = std::array<std::uint8_t, 64>;

/// Uniform words below each of `moduli` in turn, n of each (SEAL: util/rlwe.cpp sample_poly_uniform, randomgen.cpp):
/// 64-bit words of the stream modulo the prime; words that would favour small residues are replaced by later ones.
void expand_seed(const Kernels& kernels, const Seed& seed, std::size_t n, const std::vector<std::uint64_t>& moduli,
                 std::uint64_t* out);

}  // namespace heinfer
