// AVX2 build of the kernels. Only reached after the processor has been asked (words.cpp).
#include <immintrin.h>

#include "text/words_kernels.h"

namespace phi_fast {
namespace {

struct Level {
    // Two nibble look-ups ANDed: bits 0-3 word characters, bits 4-7 the characters that may follow a backslash.
    static __m256i classes(__m256i v) {
        const __m256i low = _mm256_setr_epi8(
            0x05, 0x07, char(0xD7), 0x07, char(0x87), char(0x87), 0x47, 0x07, 0x07, 0x07, 0x06, 0x02, 0x22, 0x02, 0x42, 0x1A,
            0x05, 0x07, char(0xD7), 0x07, char(0x87), char(0x87), 0x47, 0x07, 0x07, 0x07, 0x06, 0x02, 0x22, 0x02, 0x42, 0x1A);
        const __m256i high = _mm256_setr_epi8(0, 0, 0x10, 0x01, 0x02, 0x2C, 0x42, char(0x84), 0, 0, 0, 0, 0, 0, 0, 0,
                                              0, 0, 0x10, 0x01, 0x02, 0x2C, 0x42, char(0x84), 0, 0, 0, 0, 0, 0, 0, 0);
        const __m256i upper = _mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(0x0F));
        return _mm256_and_si256(_mm256_shuffle_epi8(low, v), _mm256_shuffle_epi8(high, upper));
    }
    static std::uint64_t mask(__m256i a, __m256i b) {
        return static_cast<std::uint32_t>(_mm256_movemask_epi8(a)) |
               static_cast<std::uint64_t>(static_cast<std::uint32_t>(_mm256_movemask_epi8(b))) << 32;
    }
    static std::uint64_t equal2(__m256i a, __m256i b, std::uint8_t c) {
        const __m256i x = _mm256_set1_epi8(static_cast<char>(c));
        return mask(_mm256_cmpeq_epi8(a, x), _mm256_cmpeq_epi8(b, x));
    }
    static std::uint64_t any2(__m256i a, __m256i b, std::uint8_t bits) {
        const __m256i x = _mm256_set1_epi8(static_cast<char>(bits)), zero = _mm256_setzero_si256();
        return ~mask(_mm256_cmpeq_epi8(_mm256_and_si256(a, x), zero), _mm256_cmpeq_epi8(_mm256_and_si256(b, x), zero));
    }
    template <bool Json>
    static Masks classify(const std::uint8_t* p) {
        const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
        const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32));
        const __m256i ca = classes(a), cb = classes(b);
        Masks m{};
        m.word = any2(ca, cb, 0x0F);
        m.high = mask(a, b);
        if constexpr (Json) {
            m.quote = equal2(a, b, '"');
            m.backslash = equal2(a, b, '\\');
            m.escapable = any2(ca, cb, 0xF0);
            const __m256i limit = _mm256_set1_epi8(0x1F);
            m.control = mask(_mm256_cmpeq_epi8(_mm256_min_epu8(a, limit), a), _mm256_cmpeq_epi8(_mm256_min_epu8(b, limit), b));
        }
        return m;
    }
    static std::uint64_t equal(const std::uint8_t* p, std::uint8_t c) {
        return equal2(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
                      _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32)), c);
    }
    // Writes eight at a time whatever the count, so that the usual block of five to twelve words takes no
    // unpredictable branch per word.
    static void emit(std::uint64_t mask, std::uint32_t base, std::uint32_t* out) {
        const int count = std::popcount(mask);
        for (int done = 0; done < count; done += 8) {
            for (int k = 0; k < 8; ++k) {
                out[done + k] = base + static_cast<std::uint32_t>(_tzcnt_u64(mask));
                mask = _blsr_u64(mask);
            }
        }
    }
    static std::size_t probe(const std::uint64_t* keys, std::size_t from, std::size_t to, const Prefilter& filter,
                             std::uint32_t* passed) {
        return probe_scalar(keys, from, to, filter, passed);
    }
};

}  // namespace

extern constinit const Kernels kAvx2Kernels = make_kernels<Level>("avx2");

}  // namespace phi_fast
