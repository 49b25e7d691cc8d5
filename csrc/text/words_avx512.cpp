// AVX-512 build of the kernels (BW, VL, DQ, VBMI2: Ice Lake, Zen 4 and later). Only reached after the processor has been
// asked (words.cpp).
#include <immintrin.h>

#include "text/words_kernels.h"

namespace phi_fast {
namespace {

struct Level {
    static __m512i classes(__m512i v) {  // as in words_avx2.cpp
        const __m512i low = _mm512_broadcast_i32x4(_mm_setr_epi8(0x05, 0x07, char(0xD7), 0x07, char(0x87), char(0x87), 0x47,
                                                                 0x07, 0x07, 0x07, 0x06, 0x02, 0x22, 0x02, 0x42, 0x1A));
        const __m512i high = _mm512_broadcast_i32x4(
            _mm_setr_epi8(0, 0, 0x10, 0x01, 0x02, 0x2C, 0x42, char(0x84), 0, 0, 0, 0, 0, 0, 0, 0));
        const __m512i upper = _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(0x0F));
        return _mm512_and_si512(_mm512_shuffle_epi8(low, v), _mm512_shuffle_epi8(high, upper));
    }
    template <bool Json>
    static Masks classify(const std::uint8_t* p) {
        const __m512i v = _mm512_loadu_si512(p);
        const __m512i c = classes(v);
        Masks m{};
        m.word = _mm512_test_epi8_mask(c, _mm512_set1_epi8(0x0F));
        m.high = _mm512_movepi8_mask(v);
        if constexpr (Json) {
            m.quote = _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8('"'));
            m.backslash = _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8('\\'));
            m.escapable = _mm512_test_epi8_mask(c, _mm512_set1_epi8(static_cast<char>(0xF0)));
            m.control = _mm512_cmplt_epu8_mask(v, _mm512_set1_epi8(0x20));
        }
        return m;
    }
    static std::uint64_t equal(const std::uint8_t* p, std::uint8_t c) {
        return _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(p), _mm512_set1_epi8(static_cast<char>(c)));
    }
    static void emit(std::uint64_t mask, std::uint32_t base, std::uint32_t* out) {
        alignas(64) static constexpr std::uint8_t kIota[64] = {
            0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
            22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
            44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};
        const __m512i packed = _mm512_maskz_compress_epi8(mask, _mm512_load_si512(kIota));
        const __m512i b = _mm512_set1_epi32(static_cast<int>(base));
        _mm512_storeu_si512(out, _mm512_add_epi32(_mm512_cvtepu8_epi32(_mm512_castsi512_si128(packed)), b));
        if (std::popcount(mask) > 16) [[unlikely]]  // a block holds at most 32 words
            _mm512_storeu_si512(out + 16, _mm512_add_epi32(_mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(packed, 1)), b));
    }
    static std::size_t probe(const std::uint64_t* keys, std::size_t from, std::size_t to, const Prefilter& filter,
                             std::uint32_t* passed) {
        const __m512i blocks = _mm512_set1_epi64(static_cast<long long>(filter.count));
        const __m512i one = _mm512_set1_epi64(1), six = _mm512_set1_epi64(63);
        __m256i index = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(static_cast<int>(from)));
        std::size_t n = 0, i = from;
        for (; i + 8 <= to; i += 8) {
            const __m512i key = _mm512_loadu_si512(keys + i);
            const __m512i block = _mm512_srli_epi64(_mm512_mul_epu32(_mm512_srli_epi64(key, 32), blocks), 32);
            const __m512i held = _mm512_i64gather_epi64(block, filter.blocks, 8);
            const __m512i bits = _mm512_or_si512(
                _mm512_sllv_epi64(one, _mm512_and_si512(key, six)),
                _mm512_or_si512(_mm512_sllv_epi64(one, _mm512_and_si512(_mm512_srli_epi64(key, 6), six)),
                                _mm512_sllv_epi64(one, _mm512_and_si512(_mm512_srli_epi64(key, 12), six))));
            const __mmask8 hit = _mm512_testn_epi64_mask(_mm512_andnot_si512(held, bits), _mm512_set1_epi64(-1));
            if (hit) {  // rare: most keys of a corpus are in no index
                _mm256_mask_compressstoreu_epi32(passed + n, hit, index);
                n += static_cast<std::size_t>(std::popcount(static_cast<unsigned>(hit)));
            }
            index = _mm256_add_epi32(index, _mm256_set1_epi32(8));
        }
        return n + probe_scalar(keys, i, to, filter, passed + n);
    }
};

}  // namespace

extern constinit const Kernels kAvx512Kernels = make_kernels<Level>("avx512");

}  // namespace phi_fast
