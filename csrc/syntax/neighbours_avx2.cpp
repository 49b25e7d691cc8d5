// AVX2 build of the histogram bound: a histogram is one vector, eight items a step. Only reached after the processor has
// been asked.
#include <immintrin.h>

#include "syntax/neighbours_bounds.h"

namespace phi_fast::syntax {
namespace {

// What the query has more than four items, as four 16-bit sums in the low half.
inline __m128i more_than_four(__m256i own, const std::uint8_t* rows) {
    const auto more = [&](int k) {
        const __m256i other = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows + 32 * k));
        return _mm256_sad_epu8(_mm256_subs_epu8(own, other), _mm256_setzero_si256());
    };
    const __m256i packed = _mm256_or_si256(_mm256_or_si256(more(0), _mm256_slli_epi64(more(1), 16)),
                                           _mm256_or_si256(_mm256_slli_epi64(more(2), 32), _mm256_slli_epi64(more(3), 48)));
    const __m128i half = _mm_add_epi16(_mm256_castsi256_si128(packed), _mm256_extracti128_si256(packed, 1));
    return _mm_add_epi16(half, _mm_unpackhi_epi64(half, half));
}

}  // namespace

std::size_t bound_avx2(const BoundQuery& query, const BoundItems& items, std::size_t from, std::size_t to, std::uint32_t* out) {
    const __m256i own = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(query.histogram));
    const __m128i total = _mm_set1_epi16(static_cast<short>(query.total));
    const __m128i cutoff = _mm_set1_epi16(static_cast<short>(query.cutoff));
    const __m128i share = _mm_set1_epi16(static_cast<short>(query.share));
    std::size_t n = 0;
    for (std::size_t k = from; k < to; k += kBoundStep) {
        const std::uint8_t* rows = items.histograms + 32 * k;
        const __m128i more = _mm_unpacklo_epi64(more_than_four(own, rows), more_than_four(own, rows + 128));
        const __m128i less = _mm_subs_epu16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(items.totals + k)), total);
        const __m128i length = _mm_loadu_si128(reinterpret_cast<const __m128i*>(items.lengths + k));
        const __m128i allowed = _mm_max_epu16(cutoff, _mm_mulhi_epu16(length, share));
        const __m128i over = _mm_subs_epu16(_mm_add_epi16(more, less), allowed);
        const __m128i fits = _mm_packs_epi16(_mm_cmpeq_epi16(over, _mm_setzero_si128()), _mm_setzero_si128());
        auto mask = static_cast<std::uint32_t>(_mm_movemask_epi8(fits));
        if (to - k < kBoundStep) mask &= (1u << (to - k)) - 1;
        for (; mask; mask = _blsr_u32(mask)) out[n++] = static_cast<std::uint32_t>(k) + _tzcnt_u32(mask);
    }
    return n;
}

}  // namespace phi_fast::syntax
