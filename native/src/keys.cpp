#include "keys.h"

#include <cstring>
#include <stdexcept>

namespace heinfer {

namespace {

/// Spreads a row over the tiles of a key: every tile `stride` tiles after the one before.
void write_tiles(std::size_t n, const Word* row, std::size_t stride, Word* out) {
    for (std::size_t tile = 0; tile < n; tile += tile_words) {
        std::memcpy(out + tile * stride, row + tile, tile_words * sizeof(Word));
    }
}

}  // namespace

void Keys::add(std::size_t step, std::size_t rows, const Word* words, const std::vector<Seed>& seeds, Pool& pool) {
    const Ring& ring = *ring_;
    const std::size_t n = ring.n(), primes = ring.data_primes() + 1, digits = seeds.size();
    if (rows < 1 || rows > digits || digits > ring.data_primes()) {
        throw std::invalid_argument("a key has no more digits than there are data primes, and is used with no more");
    }
    const Moves moves = ring.automorphism(step).backward.moves();
    std::vector<std::uint64_t> moduli;
    for (std::size_t prime = 0; prime < primes; ++prime) moduli.push_back(ring.modulus(prime).q);
    SwitchingKey key{rows, Rows(2 * n * rows * (rows + 1))};
    std::vector<std::vector<std::uint64_t>> uniform(pool.threads(), std::vector<std::uint64_t>(n * primes));
    std::vector<std::vector<Word>> row(pool.threads(), std::vector<Word>(2 * n));
    pool.run(rows, [&](std::size_t digit, std::size_t thread) {
        std::uint64_t* random = uniform[thread].data();
        Word *given = row[thread].data(), *moved = given + n;
        expand_seed(ring.kernels(), seeds[digit], n, moduli, random);
        for (std::size_t place = 0; place <= rows; ++place) {
            const std::size_t prime = place < rows ? place : ring.special();
            const Modulus& modulus = ring.modulus(prime);
            Word* out = key.words.data() + 2 * n * rows * place + 2 * tile_words * digit;
            const auto write = [&](const Word* from, Word* to) {
                ring.kernels().scale_move(modulus, n, from, modulus.one, nullptr, step ? &moves : nullptr, moved);
                write_tiles(n, moved, 2 * rows, to);
            };
            write(words + n * ((digits + 1) * digit + (place < rows ? place : digits)), out);
            for (std::size_t i = 0; i < n; ++i) given[i] = static_cast<Word>(random[n * prime + i]);
            write(given, out + tile_words);
        }
    });
    keys_.insert_or_assign(step, std::move(key));
}

const SwitchingKey* Keys::find(std::size_t step, std::size_t rows) const {
    const auto found = keys_.find(step);
    return found == keys_.end() || found->second.digits < rows ? nullptr : &found->second;
}

std::size_t Keys::bytes() const {
    std::size_t total = 0;
    for (const auto& [step, key] : keys_) total += key.words.bytes();
    return total;
}

}  // namespace heinfer
