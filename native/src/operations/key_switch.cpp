#include "key_switch.h"

#include <utility>

namespace heinfer {

KeySwitch::KeySwitch(std::size_t digits, std::vector<std::size_t> targets, bool exact, bool divide, std::size_t scratch)
    : digits_(digits), targets_(std::move(targets)), exact_(exact && targets_.size() == 1 && targets_[0] > 0),
      divide_(divide), scratch_(scratch) {}

std::vector<std::array<std::size_t, 2>> KeySwitch::keys() const {
    std::vector<std::array<std::size_t, 2>> used;
    for (const std::size_t step : targets_) used.push_back({step, digits_});
    return used;
}

void KeySwitch::take_digit(const Run& run, std::size_t j, const Word* row) const {
    run.ring.kernels().inverse(run.ring.transform(j), row, 0, run.row(scratch_ + j));
}

Word* KeySwitch::sum(const Run& run, std::size_t target, std::size_t half, std::size_t row) const {
    return run.row(scratch_ + digits_ + (2 * target + half) * (digits_ + 1) + row);
}

// SEAL decomposes the rotated polynomial: where the rotation changes a coefficient's sign, the digit is q_j - x. Seen
// before the rotation that is x - q_j, unless x is 0. Hoisted digits are x everywhere: another representative.
const Word* KeySwitch::transform(const Run& run, std::size_t j, std::size_t row, std::size_t thread) const {
    const std::size_t to = prime(run, row);
    const Word* digit = run.row(scratch_ + j);
    Word* out = run.own_row(thread, j);
    Lift lift = run.ring.lift(j, to);
    if (exact_) {
        const Word offset = run.ring.modulus(to).q - run.ring.residue(j, to);
        lift = run.ring.lift(j, to, offset, run.ring.automorphism(targets_[0]).signs.data());
    }
    run.ring.kernels().forward(run.ring.transform(to), digit, lift, out);
    return out;
}

void KeySwitch::sum_up(const Run& run, std::size_t row, const std::vector<const Word*>& transformed) const {
    const std::size_t n = run.ring.n(), of = prime(run, row);
    for (std::size_t target = 0; target < targets_.size(); ++target) {
        const SwitchingKey& key = *run.keys.find(targets_[target], digits_);
        Word* out[2] = {sum(run, target, 0, row), sum(run, target, 1, row)};
        run.ring.kernels().inner_product(run.ring.modulus(of), n, transformed.data(), digits_,
                                         key.part(n, row == digits_ ? key.digits : row), key.digits, out);
        if (divide_ && row == digits_) {
            for (Word* half : out) run.ring.kernels().inverse(run.ring.transform(of), half, run.ring.modulus(of).half, half);
        }
    }
}

void KeySwitch::divide(const Run& run, std::size_t target, std::size_t half, std::size_t row, const Word* before,
                       const Moves* moves, const Word* after, Word* out, std::size_t thread) const {
    const Ring& ring = run.ring;
    Word* rounding = run.own_row(thread, 0);
    ring.kernels().forward(ring.transform(row), sum(run, target, half, digits_),
                           ring.lift_rounded(ring.special(), row), rounding);
    ring.kernels().divide(ring.modulus(row), ring.n(), sum(run, target, half, row), rounding,
                          ring.inverse(ring.special(), row), before, moves, after, out);
}

}  // namespace heinfer
