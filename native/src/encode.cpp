#include "encode.h"

#include <bit>
#include <cmath>
#include <numbers>
#include <stdexcept>

namespace heinfer {

namespace {

using Complex = std::complex<double>;

constexpr Word added = Word{1} << 31;  // to a coefficient with its sign, so that it is a word

// Without the checks for infinities that the operators of std::complex make.
Complex product(Complex a, Complex b) {
    return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
}

Word residue(double integer, std::uint32_t q) {
    if (std::abs(integer) < 0x1p62) {
        const std::int64_t rest = static_cast<std::int64_t>(integer) % q;
        return static_cast<Word>(rest < 0 ? rest + q : rest);
    }
    const __int128 rest = static_cast<__int128>(integer) % q;
    return static_cast<Word>(rest < 0 ? rest + q : rest);
}

double rounded(double value) {
    const double integer = std::round(value);
    if (!(std::abs(integer) < 0x1p125)) throw std::range_error("a constant times its scale has no place in any modulus");
    return integer;
}

}  // namespace

Encoder::Encoder(std::shared_ptr<const Ring> ring) : ring_(std::move(ring)) {
    const std::size_t n = ring_->n();
    const int bits = std::countr_zero(n);
    for (std::size_t k = 0; k < n; ++k) {
        const double angle = -std::numbers::pi * static_cast<double>(k) / static_cast<double>(n);
        roots_.emplace_back(std::cos(angle), std::sin(angle));
    }
    std::size_t exponent = 1;
    for (std::size_t j = 0; j < n / 2; ++j, exponent = exponent * 3 % (2 * n)) {
        place_.push_back(reverse_bits((exponent - 1) / 2, bits));
        mirror_.push_back(reverse_bits((2 * n - exponent - 1) / 2, bits));
    }
}

// m_t = scale / n * sum over odd k of Z_k e^(-i pi k t / n), with Z the slots at k = 3^j and their conjugates at -3^j:
// a Fourier transform of length n over (k - 1) / 2, then a turn by e^(-i pi t / n).
std::vector<double> Encoder::coefficients(const double* slots, double scale) const {
    const std::size_t n = ring_->n();
    std::vector<Complex> z(n);
    for (std::size_t j = 0; j < n / 2; ++j) z[place_[j]] = z[mirror_[j]] = slots[j];
    for (std::size_t half = 1; half < n; half *= 2) {
        const std::size_t stride = n / half;  // of roots_: e^(-2 pi i k / (2 half))
        for (std::size_t start = 0; start < n; start += 2 * half) {
            for (std::size_t k = 0; k < half; ++k) {
                const Complex turned = product(z[start + half + k], roots_[k * stride]);
                z[start + half + k] = z[start + k] - turned;
                z[start + k] += turned;
            }
        }
    }
    std::vector<double> result(n);
    const double factor = scale / static_cast<double>(n);
    for (std::size_t t = 0; t < n; ++t) result[t] = rounded(product(z[t], roots_[t]).real() * factor);
    return result;
}

void Encoder::row(const double* coefficients, std::size_t prime, Word* out) const {
    const std::uint32_t q = ring_->modulus(prime).q;
    for (std::size_t t = 0; t < ring_->n(); ++t) out[t] = residue(coefficients[t], q);
    ring_->kernels().forward(ring_->transform(prime), out, {}, out);
}

void Encoder::row(const Word* narrowed, std::size_t prime, Word* out) const {
    const std::uint32_t q = ring_->modulus(prime).q;
    const Lift lift{true, q - added % q, nullptr, true};
    ring_->kernels().forward(ring_->transform(prime), narrowed, lift, out);
}

bool Encoder::narrow(const std::vector<double>& coefficients, Word* out) {
    for (const double coefficient : coefficients) {
        if (!(coefficient >= -double{added} && coefficient < double{added})) return false;
        *out++ = static_cast<Word>(static_cast<std::int64_t>(coefficient) + added);
    }
    return true;
}

Word Encoder::scalar(double value, double scale, std::size_t prime) const {
    return residue(rounded(value * scale), ring_->modulus(prime).q);
}

}  // namespace heinfer
