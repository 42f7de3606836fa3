// Eight 32-bit lanes (AVX2). What each function does: see avx512.h.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace HEINFER_ISA {

struct Vec {
    static constexpr int lanes = 8;
    static constexpr int pass_stages = 3;  ///< of a transform: 2^3 vectors, which fit in registers
    using V = __m256i;
    struct Wide {
        __m256i even, odd;
    };
    typedef std::uint64_t Words __attribute__((vector_size(32)));

    template <int bits>
    static Words rotate(Words x) {
        if constexpr (bits % 8 == 0) {  // whole bytes: one instruction instead of three
            return (Words)_mm256_shuffle_epi8((__m256i)x, byte_order(bits / 8));
        } else {
            return x >> bits | x << (64 - bits);
        }
    }

    static V load(const std::uint32_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
    static void store(std::uint32_t* p, V v) { _mm256_storeu_si256((__m256i*)p, v); }
    static V all(std::uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
    static V add(V a, V b) { return _mm256_add_epi32(a, b); }
    static V sub(V a, V b) { return _mm256_sub_epi32(a, b); }
    static V min(V a, V b) { return _mm256_min_epu32(a, b); }
    static V bit_and(V a, V b) { return _mm256_and_si256(a, b); }
    static V mul_low(V a, V b) { return _mm256_mullo_epi32(a, b); }
    static V add_unless_zero(V x, V y) {
        return _mm256_add_epi32(x, _mm256_andnot_si256(_mm256_cmpeq_epi32(x, _mm256_setzero_si256()), y));
    }

    static V mul_high(V a, V b) {
        const __m256i even = _mm256_mul_epu32(a, b);
        const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
        return high_halves({even, odd});
    }

    static V mul_high_paired(V a, V b) {
        return high_halves({_mm256_mul_epu32(a, b), _mm256_mul_epu32(_mm256_srli_epi64(a, 32), b)});
    }

    static Wide wide(V a) { return {_mm256_and_si256(a, _mm256_set1_epi64x(0xFFFFFFFF)), _mm256_srli_epi64(a, 32)}; }
    static Wide wide_zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
    static Wide wide_add(Wide s, Wide t) {
        return {_mm256_add_epi64(s.even, t.even), _mm256_add_epi64(s.odd, t.odd)};
    }
    static Wide wide_mul_add(Wide s, Wide a, Wide b) {
        return {_mm256_add_epi64(s.even, _mm256_mul_epu32(a.even, b.even)),
                _mm256_add_epi64(s.odd, _mm256_mul_epu32(a.odd, b.odd))};
    }
    static Wide spread(V a) { return {a, _mm256_srli_epi64(a, 32)}; }
    static V low_halves(Wide s) { return _mm256_blend_epi32(s.even, _mm256_shuffle_epi32(s.odd, 0xA0), 0xAA); }
    static V high_halves(Wide s) { return _mm256_blend_epi32(_mm256_shuffle_epi32(s.even, 0xF5), s.odd, 0xAA); }

    template <int G>
    static void swap_blocks(V& a, V& b) {
        const V x = a, y = b;
        if constexpr (G == 4) {
            a = _mm256_permute2x128_si256(x, y, 0x20);
            b = _mm256_permute2x128_si256(x, y, 0x31);
        } else if constexpr (G == 2) {
            a = _mm256_unpacklo_epi64(x, y);
            b = _mm256_unpackhi_epi64(x, y);
        } else {
            a = _mm256_blend_epi32(x, _mm256_shuffle_epi32(y, 0xA0), 0xAA);
            b = _mm256_blend_epi32(_mm256_shuffle_epi32(x, 0xF5), y, 0xAA);
        }
    }
    static void zip(V& a, V& b) {
        const V low = _mm256_unpacklo_epi32(a, b), high = _mm256_unpackhi_epi32(a, b);
        a = _mm256_permute2x128_si256(low, high, 0x20);
        b = _mm256_permute2x128_si256(low, high, 0x31);
    }
    static void unzip(V& a, V& b) {
        const __m256 x = _mm256_castsi256_ps(a), y = _mm256_castsi256_ps(b);
        a = _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(x, y, 0x88)), 0xD8);
        b = _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(x, y, 0xDD)), 0xD8);
    }
    template <int G>
    static V load_repeated(const std::uint32_t* p) {
        if constexpr (G == 1) {
            return load(p);
        } else if constexpr (G == 2) {
            return _mm256_permutevar8x32_epi32(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i*)p)),
                                               _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
        } else {
            return _mm256_permutevar8x32_epi32(_mm256_castsi128_si256(_mm_loadl_epi64((const __m128i*)p)),
                                               _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
        }
    }
    /// An automorphism maps whole halves of a tile: the first index of a half says which.
    static void permute_tile(V (&tile)[2], const std::uint32_t* order) {
        const V from[2] = {tile[0], tile[1]};
        for (int half = 0; half < 2; ++half) {
            tile[half] = _mm256_permutevar8x32_epi32(from[order[8 * half] >> 3], load(order + 8 * half));
        }
    }

  private:
    /// In every word of eight bytes: the one `bytes` places above each.
    static __m256i byte_order(int bytes) {
        Words order;
        for (int half = 0; half < 4; ++half) {
            order[half] = 0;
            for (int i = 0; i < 8; ++i) {
                order[half] |= static_cast<std::uint64_t>(8 * (half % 2) + (i + bytes) % 8) << 8 * i;
            }
        }
        return (__m256i)order;
    }
};

}  // namespace HEINFER_ISA
