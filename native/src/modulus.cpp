#include "modulus.h"

namespace heinfer {

Modulus::Modulus(std::uint32_t prime)
    : q(prime), one(factor(1)), word(factor(static_cast<std::uint32_t>((std::uint64_t{1} << 32) % prime))),
      half(prime / 2) {}

std::uint32_t Modulus::power(std::uint32_t base, std::uint64_t exponent) const {
    std::uint32_t result = 1;
    for (; exponent; exponent >>= 1) {
        if (exponent & 1) result = multiply(result, base);
        base = multiply(base, base);
    }
    return result;
}

}  // namespace heinfer
