// Eight 32-bit lanes in plain C++; compilers make of it what the target has. What each function does: see avx512.h.
#pragma once
#include <cstdint>

namespace HEINFER_ISA {

struct Vec {
    static constexpr int lanes = 8;
    static constexpr int pass_stages = 2;  ///< of a transform: 2^2 vectors, which fit in registers
    struct V {
        std::uint32_t lane[lanes];
    };
    struct Wide {
        std::uint64_t lane[lanes];
    };
    typedef std::uint64_t Words __attribute__((vector_size(16)));

    template <int bits>
    static Words rotate(Words x) {
        return x >> bits | x << (64 - bits);
    }

    template <class F>
    static V each(F f) {
        V v;
        for (int i = 0; i < lanes; ++i) v.lane[i] = f(i);
        return v;
    }
    template <class F>
    static Wide each_wide(F f) {
        Wide s;
        for (int i = 0; i < lanes; ++i) s.lane[i] = f(i);
        return s;
    }

    static V load(const std::uint32_t* p) {
        return each([=](int i) { return p[i]; });
    }
    static void store(std::uint32_t* p, const V& v) {
        for (int i = 0; i < lanes; ++i) p[i] = v.lane[i];
    }
    static V all(std::uint32_t x) {
        return each([=](int) { return x; });
    }
    static V add(const V& a, const V& b) {
        return each([&](int i) { return a.lane[i] + b.lane[i]; });
    }
    static V sub(const V& a, const V& b) {
        return each([&](int i) { return a.lane[i] - b.lane[i]; });
    }
    static V min(const V& a, const V& b) {
        return each([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
    }
    static V bit_and(const V& a, const V& b) {
        return each([&](int i) { return a.lane[i] & b.lane[i]; });
    }
    static V mul_low(const V& a, const V& b) {
        return each([&](int i) { return a.lane[i] * b.lane[i]; });
    }
    static V add_unless_zero(const V& x, const V& y) {
        return each([&](int i) { return x.lane[i] ? x.lane[i] + y.lane[i] : 0; });
    }
    static V mul_high(const V& a, const V& b) {
        return each([&](int i) { return static_cast<std::uint32_t>(std::uint64_t{a.lane[i]} * b.lane[i] >> 32); });
    }

    static V mul_high_paired(const V& a, const V& b) { return mul_high(a, b); }

    static Wide wide(const V& a) {
        return each_wide([&](int i) { return std::uint64_t{a.lane[i]}; });
    }
    static Wide wide_zero() {
        return each_wide([](int) { return std::uint64_t{0}; });
    }
    static Wide wide_add(const Wide& s, const Wide& t) {
        return each_wide([&](int i) { return s.lane[i] + t.lane[i]; });
    }
    static Wide wide_mul_add(const Wide& s, const Wide& a, const Wide& b) {
        return each_wide([&](int i) { return s.lane[i] + (a.lane[i] & 0xFFFFFFFF) * (b.lane[i] & 0xFFFFFFFF); });
    }
    static Wide spread(const V& a) { return wide(a); }
    static V low_halves(const Wide& s) {
        return each([&](int i) { return static_cast<std::uint32_t>(s.lane[i]); });
    }
    static V high_halves(const Wide& s) {
        return each([&](int i) { return static_cast<std::uint32_t>(s.lane[i] >> 32); });
    }

    template <int G>
    static void swap_blocks(V& a, V& b) {
        for (int i = 0; i < lanes; ++i) {
            if (i & G) {
                const std::uint32_t x = a.lane[i];
                a.lane[i] = b.lane[i - G];
                b.lane[i - G] = x;
            }
        }
    }
    static void zip(V& a, V& b) {
        const V x = a, y = b;
        for (int i = 0; i < lanes / 2; ++i) {
            a.lane[2 * i] = x.lane[i];
            a.lane[2 * i + 1] = y.lane[i];
            b.lane[2 * i] = x.lane[i + lanes / 2];
            b.lane[2 * i + 1] = y.lane[i + lanes / 2];
        }
    }
    static void unzip(V& a, V& b) {
        const V x = a, y = b;
        for (int i = 0; i < lanes / 2; ++i) {
            a.lane[i] = x.lane[2 * i];
            b.lane[i] = x.lane[2 * i + 1];
            a.lane[i + lanes / 2] = y.lane[2 * i];
            b.lane[i + lanes / 2] = y.lane[2 * i + 1];
        }
    }
    template <int G>
    static V load_repeated(const std::uint32_t* p) {
        return each([=](int i) { return p[i / G]; });
    }
    static void permute_tile(V (&tile)[2], const std::uint32_t* order) {
        const V from[2] = {tile[0], tile[1]};
        for (int half = 0; half < 2; ++half) {
            tile[half] = each([&](int i) {
                const std::uint32_t source = order[8 * half + i];
                return from[source >> 3].lane[source & 7];
            });
        }
    }
};

}  // namespace HEINFER_ISA
