#include "tables.h"

#include <bit>
#include <stdexcept>

namespace heinfer {

std::size_t reverse_bits(std::size_t index, int bits) {
    std::size_t reversed = 0;
    for (int bit = 0; bit < bits; ++bit) reversed |= (index >> bit & 1) << (bits - 1 - bit);
    return reversed;
}

namespace {

std::uint32_t least_primitive_root(const Modulus& modulus, std::size_t order) {
    std::uint32_t root = 0;
    for (std::uint32_t candidate = 2; root == 0; ++candidate) {
        const std::uint32_t power = modulus.power(candidate, (modulus.q - 1) / order);
        if (modulus.power(power, order / 2) == modulus.q - 1) root = power;
    }
    const std::uint32_t square = modulus.multiply(root, root);
    std::uint32_t least = root;
    for (std::size_t i = 0; i < order / 2; ++i) {  // all primitive roots are the odd powers of one
        if (root < least) least = root;
        root = modulus.multiply(root, square);
    }
    return least;
}

}  // namespace

Tables::Tables(std::size_t length, std::uint32_t prime)
    : modulus(prime), n(length), log_n(std::countr_zero(length)), root(length), root_quotient(length),
      inverse(length), inverse_quotient(length) {
    const std::uint32_t psi = least_primitive_root(modulus, 2 * n);
    const std::uint32_t psi_inverse = modulus.inverse(psi);
    std::uint32_t power = 1, inverse_power = 1;
    for (std::size_t exponent = 0; exponent < n; ++exponent) {
        const std::size_t place = reverse_bits(exponent, log_n);
        const Factor forward = modulus.factor(power), backward = modulus.factor(inverse_power);
        root.data()[place] = forward.value, root_quotient.data()[place] = forward.quotient;
        inverse.data()[place] = backward.value, inverse_quotient.data()[place] = backward.quotient;
        power = modulus.multiply(power, psi);
        inverse_power = modulus.multiply(inverse_power, psi_inverse);
    }
    const std::uint32_t one_over_n = modulus.inverse(static_cast<std::uint32_t>(n));
    scale = modulus.factor(one_over_n);
    last_scale = modulus.factor(modulus.multiply(inverse.data()[1], one_over_n));
}

}  // namespace heinfer
