// The arithmetic on rows of residues; one implementation for each instruction set, of one source (kernels/*.inc).
//
// A row is one polynomial modulo one prime: n words, each below the prime unless said otherwise.
#pragma once
#include <cstddef>
#include <cstdint>

#include "modulus.h"

namespace heinfer {

using Word = std::uint32_t;

/// Words that lie together for all instruction sets: a cache line.
inline constexpr std::size_t tile_words = 16;

/// What a transform reads of Tables.
struct Transform {
    Modulus modulus;
    std::size_t n;
    const Word *root, *root_quotient, *inverse, *inverse_quotient;
    Factor scale, last_scale;
};

/// How residues of one prime become those of another on their way into a transform.
struct Lift {
    bool reduce = false;          ///< the source's prime is larger than twice the target's
    Word offset = 0;              ///< added to each word
    const Word* mask = nullptr;   ///< if given: added to words that are not 0, where the mask is all ones
    bool wide = false;            ///< words are any of 32 bits, not below 2^30: with `reduce`, without a mask
};

/// An automorphism on transformed rows: output tile i is made of input tile from[i] >> 4, its words in the order
/// orders[from[i] & 15].
struct Moves {
    const Word* from;
    const Word* orders;
};

/// A sum of products of ciphertext rows with constants, for one or two polynomials that share the constants.
struct Dot {
    std::size_t terms;        ///< products
    std::size_t plains;       ///< constants that are added to the first polynomial
    std::size_t stride;       ///< constants of a tile: at least terms + plains
    std::size_t addends;      ///< rows that are added
    const Word* const* left[2];   ///< the terms' rows
    const Word* const* added[2];  ///< the addends' rows
    const Word* constants;    ///< tile by tile: one tile of each term's constant, then of others, last of each plain
    bool scalar;              ///< constants are one word each, the same for all tiles
    Word* out[2];
};

struct Kernels {
    const char* name;

    /// Forward transform of `source` (words of another prime, if `lift` says so) to reduced words in the order of SEAL.
    void (*forward)(const Transform&, const Word* source, Lift lift, Word* out);
    /// Inverse transform; `offset` is added to each word, modulo the prime.
    void (*inverse)(const Transform&, const Word* source, Word offset, Word* out);

    /// out[0], out[1] = sums over j < digits of rows[j] * key: the key has, tile by tile, for each of `stride` digits
    /// a tile of its first and one of its second half.
    void (*inner_product)(const Modulus&, std::size_t n, const Word* const* rows, std::size_t digits, const Word* key,
                          std::size_t stride, Word* const* out);

    /// out = moved((x - y) * factor + before) + after; null for `before` and `after` is 0, null moves are none.
    void (*divide)(const Modulus&, std::size_t n, const Word* x, const Word* y, Factor factor, const Word* before,
                   const Moves* moves, const Word* after, Word* out);

    /// out = moved(x * factor + before), x any words; null for x is 0.
    void (*scale_move)(const Modulus&, std::size_t n, const Word* x, Factor factor, const Word* before,
                       const Moves* moves, Word* out);

    void (*dot)(const Modulus&, std::size_t n, const Dot&);
    void (*add)(const Modulus&, std::size_t n, const Word* x, const Word* y, Word* out);
    void (*multiply)(const Modulus&, std::size_t n, const Word* const* x, const Word* const* y, Word* const* out);

    /// BLAKE2Xb's inner nodes: eight consecutive blocks of 64 bytes of the output, from the 64 bytes of the root.
    void (*expand_nodes)(const std::uint64_t* root, std::uint64_t first_node, std::uint64_t* out);
};

extern const Kernels portable_kernels;
#ifdef HEINFER_X86
extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;
#endif

/// The kernels of that name, or the fastest this processor has for an empty one; std::invalid_argument otherwise.
const Kernels& choose_kernels(const char* name);

}  // namespace heinfer
