#include "constants.h"

#include <algorithm>
#include <cmath>
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

}  // namespace

std::size_t Constants::add(std::vector<std::size_t> numbers, std::size_t rows, bool extended, bool scalar,
                           bool resident) {
    const std::size_t words = rows * numbers.size() * (scalar ? 1 : ring_->n());
    blocks_.push_back({std::move(numbers), rows, extended, scalar, resident, words, resident_words_});
    if (resident) resident_words_ += words;
    return blocks_.size() - 1;
}

void Constants::take(std::vector<Constant> constants) {
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
    constants_ = std::move(constants);
}

void Constants::load(std::vector<Constant> constants, std::size_t threads) {
    take(std::move(constants));
    own_ = Rows(resident_words_);
    words_ = own_.data();
    std::vector<std::pair<std::size_t, std::size_t>> tasks;
    for (std::size_t block = 0; block < blocks_.size(); ++block) {
        for (std::size_t place = 0; blocks_[block].resident && place < count(block); ++place) {
            tasks.emplace_back(block, place);
        }
    }
    Pool pool(threads);
    pool.run(tasks.size(), [&](std::size_t task, std::size_t) {
        const auto& [block, place] = tasks[task];
        encode(block, place, own_.data() + blocks_[block].offset);
    });
    loaded_ = true;
}

void Constants::load(std::vector<Constant> constants, const Word* words, std::size_t count) {
    if (count != resident_words_) throw std::invalid_argument("the encoded constants are of another program");
    take(std::move(constants));
    own_ = Rows();
    words_ = words;
    loaded_ = true;
}

std::vector<Word> Constants::scalar_words(const Block& block, const Constant& constant) const {
    std::vector<Word> words(block.rows);
    for (std::size_t row = 0; row < block.rows; ++row) {
        words[row] = encoder_.scalar(*constant.values, constant.scale, prime(block, row));
    }
    // What rounds to zero becomes one unit, as on SEAL, which refuses to multiply by zero.
    if (std::all_of(words.begin(), words.end(), [](Word word) { return word == 0; })) {
        std::fill(words.begin(), words.end(), 1);
    }
    return words;
}

void Constants::encode(std::size_t number, std::size_t place, Word* out) const noexcept {
    const Block& block = blocks_[number];
    const Constant& constant = constants_[block.numbers[place]];
    const std::size_t n = ring_->n(), stride = block.numbers.size();
    std::vector<Word> scalar;
    std::vector<double> coefficients;
    if (constant.scalar) {
        scalar = scalar_words(block, constant);
    } else {
        coefficients = encoder_.coefficients(constant.values, constant.scale);
    }
    const bool zero = std::all_of(coefficients.begin(), coefficients.end(), [](double c) { return c == 0; });
    std::vector<Word> words(block.scalar ? 0 : n);
    for (std::size_t row = 0; row < block.rows; ++row) {
        if (block.scalar) {
            out[row * stride + place] = scalar[row];
            continue;
        }
        if (constant.scalar || zero) {  // one unit in the constant coefficient has one value everywhere, too
            std::fill(words.begin(), words.end(), constant.scalar ? scalar[row] : 1);
        } else {
            encoder_.row(coefficients, prime(block, row), words.data());
        }
        Word* to = out + (row * n * stride + place * tile_words);
        for (std::size_t tile = 0; tile < n; tile += tile_words, to += stride * tile_words) {
            std::memcpy(to, words.data() + tile, tile_words * sizeof(Word));
        }
    }
}

}  // namespace heinfer
