// A prime below 2^30 with what reductions by it need.
#pragma once
#include <cstdint>

namespace heinfer {

/// A factor w with its quotient floor(2^32 w / q): x w mod q then takes no division (V. Shoup, NTL).
struct Factor {
    std::uint32_t value, quotient;
};

struct Modulus {
    std::uint32_t q;
    Factor one;   ///< 1: reduces any 32-bit word
    Factor word;  ///< 2^32 mod q: folds the upper half of a 64-bit word
    std::uint32_t half;  ///< floor(q / 2)

    explicit Modulus(std::uint32_t prime);

    std::uint32_t multiply(std::uint32_t a, std::uint32_t b) const {
        return static_cast<std::uint32_t>(std::uint64_t{a} * b % q);
    }
    std::uint32_t power(std::uint32_t base, std::uint64_t exponent) const;
    std::uint32_t inverse(std::uint32_t a) const { return power(a, q - 2); }
    Factor factor(std::uint32_t w) const {
        return {w, static_cast<std::uint32_t>((std::uint64_t{w} << 32) / q)};
    }
};

}  // namespace heinfer
