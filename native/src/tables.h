// Powers of the root of unity, in the order in which the transforms read them.
#pragma once
#include <cstddef>
#include <cstdint>

#include "memory.h"
#include "modulus.h"

namespace heinfer {

std::size_t reverse_bits(std::size_t index, int bits);

/// Of the negacyclic transform of length n modulo a prime, as SEAL defines it (util/ntt.cpp):
/// value i is that of the polynomial at psi^(2 brv(i) + 1), psi the least primitive 2n-th root.
struct Tables {
    Modulus modulus;
    std::size_t n;
    int log_n;
    Rows root, root_quotient;        ///< [m + i]: of block i in the stage with m blocks
    Rows inverse, inverse_quotient;  ///< their inverses, at the same places
    Factor scale;       ///< 1 / n
    Factor last_scale;  ///< inverse root of the last inverse stage, over n

    Tables(std::size_t length, std::uint32_t prime);
};

}  // namespace heinfer
