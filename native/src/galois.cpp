#include "galois.h"

#include <algorithm>
#include <array>
#include <bit>

#include "tables.h"

namespace heinfer {

std::size_t galois_element(std::size_t n, std::size_t step) {
    std::size_t element = 1;
    for (std::size_t i = 0; i < step; ++i) element = element * 3 % (2 * n);
    return element;
}

std::size_t inverse_element(std::size_t n, std::size_t element) {
    std::size_t inverse = 1;
    for (std::size_t i = 1; i < n / 2; ++i) inverse = inverse * element % (2 * n);  // the group's exponent is n / 2
    return inverse;
}

MoveTable::MoveTable(std::size_t n, std::size_t element) : from_(n / tile_words) {
    const int bits = std::countr_zero(n);
    const auto source = [&](std::size_t i) {
        const std::size_t exponent = element * (2 * reverse_bits(i, bits) + 1);
        return reverse_bits((exponent >> 1) % n, bits);
    };
    for (std::size_t tile = 0; tile < from_.size(); ++tile) {
        std::array<Word, tile_words> order;
        for (std::size_t i = 0; i < tile_words; ++i) order[i] = source(tile * tile_words + i) % tile_words;
        std::size_t known = 0;
        while (known < orders_.size() && !std::equal(order.begin(), order.end(), orders_.begin() + known)) {
            known += tile_words;
        }
        if (known == orders_.size()) orders_.insert(orders_.end(), order.begin(), order.end());
        from_[tile] = static_cast<Word>(source(tile * tile_words) / tile_words << 4 | known / tile_words);
    }
}

std::vector<Word> sign_mask(std::size_t n, std::size_t element) {
    std::vector<Word> mask(n);
    for (std::size_t i = 0; i < n; ++i) mask[i] = i * element % (2 * n) >= n ? ~Word{0} : 0;
    return mask;
}

}  // namespace heinfer
