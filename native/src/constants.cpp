#include "constants.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>

namespace heinfer {

namespace {

constexpr double largest = 0x1p124;  // a coefficient is at most twice the largest slot times the scale
constexpr double largest_slot = 0x1p1000;  // the transform sums up slots before it scales them: no sum may overflow

bool fits(const Constant& constant, std::size_t slots) {
    if (!(constant.scale > 0)) return false;
    const std::size_t values = constant.scalar ? 1 : slots;
    return std::all_of(constant.values, constant.values + values, [&](double value) {
        return std::abs(value) < largest_slot && std::abs(value) * constant.scale < largest;
    });
}

// What rounds to zero becomes one unit in the constant coefficient, as on SEAL, which refuses to multiply by zero.
void refuse_zero(double* coefficients, std::size_t n) {
    if (std::all_of(coefficients, coefficients + n, [](double c) { return c == 0; })) coefficients[0] = 1;
}

}  // namespace

void spread(const Word* row, std::size_t n, std::size_t stride, Word* out) {
    for (std::size_t tile = 0; tile < n; tile += tile_words, out += stride * tile_words) {
        std::memcpy(out, row + tile, tile_words * sizeof(Word));
    }
}

std::size_t Constants::add(std::vector<std::size_t> numbers, std::size_t rows, bool extended, bool scalar, Kept kept) {
    if (kept > Kept::residues || (scalar && kept != Kept::residues)) {
        throw std::invalid_argument("the constants of a sum are kept in no such way");
    }
    std::size_t words = numbers.size() * (scalar ? 1 : ring_->n());
    if (kept == Kept::residues) words *= rows;
    words = (words + tile_words - 1) / tile_words * tile_words;  // every block begins a cache line
    blocks_.push_back({std::move(numbers), rows, extended, scalar, kept, kept_words_});
    kept_words_ += words;
    return blocks_.size() - 1;
}

void Constants::take(const std::vector<Constant>& constants) {
    for (const Constant& constant : constants) {
        if (!fits(constant, ring_->n() / 2)) {
            throw std::range_error("a constant times its scale has no place in any modulus");
        }
    }
    for (const Block& block : blocks_) {
        for (const std::size_t number : block.numbers) {
            if (number >= constants.size()) throw std::invalid_argument("the code names a constant that there is not");
            if (block.scalar && !constants[number].scalar) {
                throw std::invalid_argument("a sum of scalars has a constant that is none");
            }
        }
    }
    known_.clear();
    for (const Constant& constant : constants) {
        known_.push_back({constant.scalar ? *constant.values : 0, constant.scale, constant.scalar});
    }
}

void Constants::load(std::vector<Constant> constants, std::size_t threads) {
    loaded_ = false;
    take(constants);
    own_ = Rows(kept_words_);
    words_ = own_.data();
    std::vector<std::pair<std::size_t, std::size_t>> tasks;
    for (std::size_t block = 0; block < blocks_.size(); ++block) {
        for (std::size_t place = 0; place < count(block); ++place) tasks.emplace_back(block, place);
        const std::size_t end = block + 1 < blocks_.size() ? blocks_[block + 1].offset : kept_words_;
        std::fill(own_.data() + end - std::min(end, tile_words), own_.data() + end, 0);  // where a block ends early
    }
    std::atomic<bool> all_fit{true};
    Pool pool(threads);
    pool.run(tasks.size(), [&](std::size_t task, std::size_t) {
        const Block& block = blocks_[tasks[task].first];
        const std::size_t place = tasks[task].second;
        if (!make(block, place, constants[block.numbers[place]], own_.data() + block.offset)) all_fit = false;
    });
    if (!all_fit) throw std::range_error("a constant has a coefficient that does not fit 32 bits");
    loaded_ = true;
}

void Constants::load(std::vector<Constant> constants, const Word* words, std::size_t count) {
    if (count != kept_words_) throw std::invalid_argument("the encoded constants are of another program");
    if (reinterpret_cast<std::uintptr_t>(words) % alignof(double)) {
        throw std::invalid_argument("encoded constants are not aligned to doubles");
    }
    take(constants);
    own_ = Rows();
    words_ = words;
    loaded_ = true;
}

std::vector<Word> Constants::scalar_words(const Block& block, double value, double scale) const {
    std::vector<Word> words(block.rows);
    for (std::size_t row = 0; row < block.rows; ++row) words[row] = encoder_.scalar(value, scale, prime(block, row));
    // One unit instead of zero, here too.
    if (std::all_of(words.begin(), words.end(), [](Word word) { return word == 0; })) {
        std::fill(words.begin(), words.end(), 1);
    }
    return words;
}

bool Constants::make(const Block& block, std::size_t place, const Constant& constant, Word* out) const {
    const std::size_t n = ring_->n();
    if (block.kept == Kept::residues) {
        make_residues(block, place, constant, out);
        return true;
    }
    Word* to = out + place * n;
    if (constant.scalar) {  // is made of its value
        std::fill(to, to + n, 0);
        return true;
    }
    if (block.kept == Kept::slots) {
        std::memcpy(to, constant.values, n / 2 * sizeof(double));
        return true;
    }
    auto coefficients = encoder_.coefficients(constant.values, constant.scale);
    refuse_zero(coefficients.data(), n);
    return Encoder::narrow(coefficients, to);
}

void Constants::make_residues(const Block& block, std::size_t place, const Constant& constant, Word* out) const {
    const std::size_t n = ring_->n(), stride = block.numbers.size();
    if (block.scalar) {
        const auto words = scalar_words(block, *constant.values, constant.scale);
        for (std::size_t row = 0; row < block.rows; ++row) out[row * stride + place] = words[row];
        return;
    }
    std::vector<Word> words(n), scalar;
    std::vector<double> coefficients;
    if (constant.scalar) {
        scalar = scalar_words(block, *constant.values, constant.scale);
    } else {
        coefficients = encoder_.coefficients(constant.values, constant.scale);
        refuse_zero(coefficients.data(), n);
    }
    for (std::size_t row = 0; row < block.rows; ++row) {
        if (constant.scalar) {
            std::fill(words.begin(), words.end(), scalar[row]);
        } else {
            encoder_.row(coefficients.data(), prime(block, row), words.data());
        }
        spread(words.data(), n, stride, out + (row * n * stride + place * tile_words));
    }
}

void Constants::transform_slots(std::size_t number, std::size_t place, double* out) const noexcept {
    const Block& block = blocks_[number];
    const Known& known = known_[block.numbers[place]];
    if (known.scalar) return;
    const auto* slots = reinterpret_cast<const double*>(this->place(block, place));
    const auto coefficients = encoder_.coefficients(slots, known.scale);
    std::copy(coefficients.begin(), coefficients.end(), out);
    refuse_zero(out, ring_->n());
}

void Constants::row(std::size_t number, std::size_t place, std::size_t row, const double* doubles,
                    Word* out) const noexcept {
    const Block& block = blocks_[number];
    const Known& known = known_[block.numbers[place]];
    if (known.scalar) {
        std::fill(out, out + ring_->n(), scalar_words(block, known.value, known.scale)[row]);
    } else if (doubles) {
        encoder_.row(doubles, prime(block, row), out);
    } else {
        encoder_.row(this->place(block, place), prime(block, row), out);
    }
}

}  // namespace heinfer
