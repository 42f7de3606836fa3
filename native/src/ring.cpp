#include "ring.h"

#include <bit>
#include <stdexcept>

namespace heinfer {

namespace {

constexpr std::size_t least_n = 64, largest_n = std::size_t{1} << 17;  // two AVX-512 vectors and a stage before them

void require_ring(std::size_t n, const std::vector<Word>& primes) {
    if (!std::has_single_bit(n) || n < least_n || n > largest_n) {
        throw std::invalid_argument("the ring degree must be a power of two between 64 and 131072");
    }
    if (primes.size() < 2) throw std::invalid_argument("a data prime and a special prime are needed");
    for (const Word q : primes) {
        if (q == 1 || q >= Word{1} << 30 || q % (2 * n) != 1) {
            throw std::invalid_argument("primes are below 2^30 and 1 mod 2N");
        }
        for (Word divisor = 3; std::uint64_t{divisor} * divisor <= q; divisor += 2) {
            if (q % divisor == 0) throw std::invalid_argument("a modulus is not prime");
        }
    }
}

}  // namespace

Ring::Ring(std::size_t n, const std::vector<Word>& primes, const std::string& kernels)
    : n_(n), kernels_(choose_kernels(kernels.c_str())) {
    require_ring(n, primes);
    for (const Word q : primes) tables_.emplace_back(n, q);
    for (const Tables& t : tables_) {
        transforms_.push_back({t.modulus, n, t.root.data(), t.root_quotient.data(), t.inverse.data(),
                               t.inverse_quotient.data(), t.scale, t.last_scale});
    }
    for (std::size_t of = 0; of < primes.size(); ++of) {
        inverses_.emplace_back();
        for (const Tables& t : tables_) {
            const Word residue = primes[of] % t.modulus.q;
            inverses_.back().push_back(t.modulus.factor(residue ? t.modulus.inverse(residue) : 0));
        }
    }
}

const Automorphism& Ring::automorphism(std::size_t step) const {
    if (step >= n_ / 2) throw std::invalid_argument("a rotation's step is below the number of slots");
    const std::lock_guard lock(mutex_);
    auto& known = automorphisms_[step];
    if (!known) {
        const std::size_t element = galois_element(n_, step);
        known = std::make_unique<Automorphism>(Automorphism{
            MoveTable(n_, element), MoveTable(n_, inverse_element(n_, element)), sign_mask(n_, element)});
    }
    return *known;
}

Lift Ring::lift(std::size_t from, std::size_t to, Word offset, const Word* mask) const {
    // A transform takes words below 4q: what is below 2q may be added an offset below q without a reduction.
    return {modulus(from).q > 2 * modulus(to).q, offset, mask};
}

Lift Ring::lift_rounded(std::size_t from, std::size_t to) const {
    const Modulus& target = modulus(to);
    return lift(from, to, target.q - modulus(from).half % target.q);
}

}  // namespace heinfer
