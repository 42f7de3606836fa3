// Sixteen 32-bit lanes (AVX-512 F).
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace HEINFER_ISA {

struct Vec {
    static constexpr int lanes = 16;
    static constexpr int pass_stages = 3;  ///< of a transform: 2^3 vectors, which fit in registers
    using V = __m512i;
    /// 64-bit sums of products: those of the even lanes and those of the odd lanes.
    struct Wide {
        __m512i even, odd;
    };
    /// 64-bit lanes, with the operators of GCC's vectors.
    typedef std::uint64_t Words __attribute__((vector_size(64)));

    /// Every 64-bit lane rotated to the right.
    template <int bits>
    static Words rotate(Words x) {
        return (Words)_mm512_ror_epi64((__m512i)x, bits);
    }

    static V load(const std::uint32_t* p) { return _mm512_loadu_si512(p); }
    static void store(std::uint32_t* p, V v) { _mm512_storeu_si512(p, v); }
    static V all(std::uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
    static V add(V a, V b) { return _mm512_add_epi32(a, b); }
    static V sub(V a, V b) { return _mm512_sub_epi32(a, b); }
    static V min(V a, V b) { return _mm512_min_epu32(a, b); }
    static V bit_and(V a, V b) { return _mm512_and_si512(a, b); }
    static V mul_low(V a, V b) { return _mm512_mullo_epi32(a, b); }
    /// x where x is 0, else x + y.
    static V add_unless_zero(V x, V y) { return _mm512_mask_add_epi32(x, _mm512_test_epi32_mask(x, x), x, y); }

    static V mul_high(V a, V b) {
        const __m512i even = _mm512_mul_epu32(a, b);
        const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32));
        return high_halves({even, odd});
    }

    /// mul_high for a `b` with equal neighbours: lanes 2i and 2i + 1.
    static V mul_high_paired(V a, V b) {
        return high_halves({_mm512_mul_epu32(a, b), _mm512_mul_epu32(_mm512_srli_epi64(a, 32), b)});
    }

    static Wide wide(V a) { return {_mm512_and_si512(a, low_mask()), _mm512_srli_epi64(a, 32)}; }
    static Wide wide_zero() { return {_mm512_setzero_si512(), _mm512_setzero_si512()}; }
    static Wide wide_add(Wide s, Wide t) {
        return {_mm512_add_epi64(s.even, t.even), _mm512_add_epi64(s.odd, t.odd)};
    }
    /// s + a * b, where `a` and `b` come from wide() or spread(): lanes above 32 bits do not count.
    static Wide wide_mul_add(Wide s, Wide a, Wide b) {
        return {_mm512_add_epi64(s.even, _mm512_mul_epu32(a.even, b.even)),
                _mm512_add_epi64(s.odd, _mm512_mul_epu32(a.odd, b.odd))};
    }
    /// As wide(), but the upper halves are arbitrary: a factor for wide_mul_add.
    static Wide spread(V a) { return {a, _mm512_srli_epi64(a, 32)}; }
    static V low_halves(Wide s) {
        return _mm512_mask_shuffle_epi32(s.even, 0xAAAA, s.odd, static_cast<_MM_PERM_ENUM>(0xA0));
    }
    static V high_halves(Wide s) {
        return _mm512_mask_shuffle_epi32(s.odd, 0x5555, s.even, static_cast<_MM_PERM_ENUM>(0xF5));
    }

    /// In every pair of neighbouring blocks of G lanes: a's upper block and b's lower block change places.
    template <int G>
    static void swap_blocks(V& a, V& b) {
        const V x = a, y = b;
        if constexpr (G == 8) {
            a = _mm512_shuffle_i64x2(x, y, 0x44);
            b = _mm512_shuffle_i64x2(x, y, 0xEE);
        } else if constexpr (G == 4) {
            a = _mm512_permutex2var_epi64(x, _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13), y);
            b = _mm512_permutex2var_epi64(x, _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15), y);
        } else if constexpr (G == 2) {
            a = _mm512_unpacklo_epi64(x, y);
            b = _mm512_unpackhi_epi64(x, y);
        } else {
            a = _mm512_mask_shuffle_epi32(x, 0xAAAA, y, static_cast<_MM_PERM_ENUM>(0xA0));
            b = _mm512_mask_shuffle_epi32(y, 0x5555, x, static_cast<_MM_PERM_ENUM>(0xF5));
        }
    }
    /// a, b = the first and the second half of a0 b0 a1 b1 ...
    static void zip(V& a, V& b) {
        const V x = a, y = b;
        a = _mm512_permutex2var_epi32(x, _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), y);
        b = _mm512_permutex2var_epi32(
            x, _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31), y);
    }
    /// The inverse of zip.
    static void unzip(V& a, V& b) {
        const V x = a, y = b;
        a = _mm512_permutex2var_epi32(x, _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30),
                                      y);
        b = _mm512_permutex2var_epi32(x, _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31),
                                      y);
    }
    /// lanes / G words, each in G lanes.
    template <int G>
    static V load_repeated(const std::uint32_t* p) {
        if constexpr (G == 1) {
            return load(p);
        } else if constexpr (G == 2) {
            return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7),
                                            _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i*)p)));
        } else if constexpr (G == 4) {
            return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3),
                                            _mm512_castsi128_si512(_mm_loadu_si128((const __m128i*)p)));
        } else {
            return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1),
                                            _mm512_castsi128_si512(_mm_loadl_epi64((const __m128i*)p)));
        }
    }
    /// Lane i of a tile of 16 words becomes what lane order[i] was.
    static void permute_tile(V (&tile)[1], const std::uint32_t* order) {
        tile[0] = _mm512_permutexvar_epi32(load(order), tile[0]);
    }

  private:
    static __m512i low_mask() { return _mm512_set1_epi64(0xFFFFFFFF); }
};

}  // namespace HEINFER_ISA
