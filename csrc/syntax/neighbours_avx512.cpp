// AVX-512 build of the histogram bound: two items a vector, eight a step. Only reached after the processor has been asked.
#include <immintrin.h>

#include "syntax/neighbours_bounds.h"

namespace phi_fast::syntax {

std::size_t bound_avx512(const BoundQuery& query, const BoundItems& items, std::size_t from, std::size_t to, std::uint32_t* out) {
    const __m512i own = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(query.histogram)));
    const __m128i total = _mm_set1_epi16(static_cast<short>(query.total));
    const __m128i cutoff = _mm_set1_epi16(static_cast<short>(query.cutoff));
    const __m128i share = _mm_set1_epi16(static_cast<short>(query.share));
    // From the order the sums come in (0 2 4 6 1 3 5 7) to that of the items.
    const __m128i order = _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
    std::size_t n = 0;
    for (std::size_t k = from; k < to; k += kBoundStep) {
        const std::uint8_t* rows = items.histograms + 32 * k;
        const auto more_than_two = [&](int pair) {
            return _mm512_sad_epu8(_mm512_subs_epu8(own, _mm512_loadu_si512(rows + 64 * pair)), _mm512_setzero_si512());
        };
        const __m512i packed =
            _mm512_or_si512(_mm512_or_si512(more_than_two(0), _mm512_slli_epi64(more_than_two(1), 16)),
                            _mm512_or_si512(_mm512_slli_epi64(more_than_two(2), 32), _mm512_slli_epi64(more_than_two(3), 48)));
        const __m256i even = _mm512_castsi512_si256(packed), odd = _mm512_extracti64x4_epi64(packed, 1);
        const __m256i sums = _mm256_add_epi16(_mm256_unpacklo_epi64(even, odd), _mm256_unpackhi_epi64(even, odd));
        const __m128i more = _mm_shuffle_epi8(
            _mm_add_epi16(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1)), order);
        const __m128i less = _mm_subs_epu16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(items.totals + k)), total);
        const __m128i length = _mm_loadu_si128(reinterpret_cast<const __m128i*>(items.lengths + k));
        const __m128i allowed = _mm_max_epu16(cutoff, _mm_mulhi_epu16(length, share));
        // No mask register here: GCC 12 may spill an 8-bit mask as one byte and read it back as four.
        const __m128i over = _mm_subs_epu16(_mm_add_epi16(more, less), allowed);
        const __m128i fits = _mm_packs_epi16(_mm_cmpeq_epi16(over, _mm_setzero_si128()), _mm_setzero_si128());
        auto mask = static_cast<std::uint32_t>(_mm_movemask_epi8(fits));
        if (to - k < kBoundStep) mask &= (1u << (to - k)) - 1;
        for (; mask; mask = _blsr_u32(mask)) out[n++] = static_cast<std::uint32_t>(k) + _tzcnt_u32(mask);
    }
    return n;
}

}  // namespace phi_fast::syntax
