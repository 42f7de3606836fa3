#include "seed.h"

#include <bit>
#include <cstring>
#include <limits>

namespace heinfer {

namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::size_t block_words = 512;  // of 4096 bytes, as SEAL's generator fills its buffer

using Block = std::array<std::uint64_t, 16>;
using State = std::array<std::uint64_t, 8>;

constexpr State initial_state = {0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
                                 0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};

constexpr std::uint8_t schedule[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

void mix(Block& v, int a, int b, int c, int d, std::uint64_t x, std::uint64_t y) {
    v[a] += v[b] + x;
    v[d] = std::rotr(v[d] ^ v[a], 32);
    v[c] += v[d];
    v[b] = std::rotr(v[b] ^ v[c], 24);
    v[a] += v[b] + y;
    v[d] = std::rotr(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = std::rotr(v[b] ^ v[c], 63);
}

/// BLAKE2b's compression, RFC 7693.
void compress(State& h, const Block& message, std::uint64_t hashed, bool last) {
    Block v;
    for (int i = 0; i < 8; ++i) v[i] = h[i], v[8 + i] = initial_state[i];
    v[12] ^= hashed;
    if (last) v[14] = ~v[14];
    for (int round = 0; round < 12; ++round) {
        const auto& order = schedule[round % 10];
        for (int i = 0; i < 4; ++i) mix(v, i, 4 + i, 8 + i, 12 + i, message[order[2 * i]], message[order[2 * i + 1]]);
        for (int i = 0; i < 4; ++i) {
            mix(v, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, message[order[8 + 2 * i]],
                message[order[9 + 2 * i]]);
        }
    }
    for (int i = 0; i < 8; ++i) h[i] ^= v[i] ^ v[8 + i];
}

/// BLAKE2Xb (J.-P. Aumasson et al.) of a counter under the seed as key: 4096 bytes.
void expand_block(const Kernels& kernels, const Seed& seed, std::uint64_t counter, std::uint64_t* out) {
    State root = initial_state;
    root[0] ^= 64 | 64 << 8 | 1 << 16 | 1 << 24;  // digest length, key length, fanout, depth
    root[1] ^= std::uint64_t{4096} << 32;         // output length
    Block message{};
    std::memcpy(message.data(), seed.data(), seed.size());
    compress(root, message, 128, false);
    message = {counter};
    compress(root, message, 136, true);
    for (std::uint64_t node = 0; node < block_words / 8; node += 8) kernels.expand_nodes(root.data(), node, out + 8 * node);
}

/// x mod q, given floor((2^64 - 1) / q): a division takes as long as all that makes the word. The estimated quotient is
/// at most two too small (P. Barrett, CRYPTO 1986).
std::uint64_t reduce(std::uint64_t x, std::uint64_t q, std::uint64_t quotient) {
    __extension__ using Wide = unsigned __int128;
    std::uint64_t rest = x - static_cast<std::uint64_t>(Wide{x} * quotient >> 64) * q;
    rest -= rest >= q ? q : 0;
    return rest - (rest >= q ? q : 0);
}

}  // namespace

void expand_seed(const Kernels& kernels, const Seed& seed, std::size_t n, const std::vector<std::uint64_t>& moduli,
                 std::uint64_t* out) {
    std::array<std::uint64_t, block_words> block;
    std::uint64_t counter = 0;
    const std::size_t words = n * moduli.size();
    std::size_t read = 0;  // words of the last block that are taken
    for (std::size_t at = 0; at < words; at += block_words) {
        expand_block(kernels, seed, counter++, block.data());
        read = words - at < block_words ? words - at : block_words;
        std::memcpy(out + at, block.data(), read * sizeof(std::uint64_t));
    }
    const auto next = [&] {
        if (read == block_words) {
            expand_block(kernels, seed, counter++, block.data());
            read = 0;
        }
        return block[read++];
    };
    for (const std::uint64_t q : moduli) {
        const std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
        const std::uint64_t bound = most - most % q - 1, quotient = most / q;
        for (std::size_t i = 0; i < n; ++i, ++out) {
            while (*out >= bound) *out = next();
            *out = reduce(*out, q, quotient);
        }
    }
}

}  // namespace heinfer
