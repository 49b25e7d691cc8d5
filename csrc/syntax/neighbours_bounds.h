// The histogram bound over a run of items: compiled once per SIMD level (neighbours_scalar.cpp, neighbours_avx2.cpp,
// neighbours_avx512.cpp), chosen with the level of the word kernels.
#pragma once

#include <cstddef>
#include <cstdint>

namespace phi_fast::syntax {

inline constexpr std::size_t kBoundStep = 8;          // items a step; arrays are readable so far past their end
inline constexpr std::uint32_t kBoundLength = 32767;  // longest sequence these 16-bit sums are for

// Items sorted by length: 32 counters each, the sum of them, and the length.
struct BoundItems {
    const std::uint8_t* histograms;
    const std::uint16_t* totals;
    const std::uint16_t* lengths;
};

struct BoundQuery {
    const std::uint8_t* histogram;
    std::uint16_t total;
    std::uint16_t cutoff;  // edits allowed against an item no longer than the query
    std::uint16_t share;   // edits allowed against a longer one: its length * share / 65536, rounded down
};

// Writes the numbers of the items in [from, to) that the bound lets through; returns how many. `out` has room for all and
// kBoundStep more. More edits than max(what one has more, what the other has more) are never needed to tell them apart:
// with sums a and b and m = what the query has more, that is m + max(0, b - a).
using BoundKernel = std::size_t (*)(const BoundQuery&, const BoundItems&, std::size_t from, std::size_t to, std::uint32_t* out);

std::size_t bound_scalar(const BoundQuery&, const BoundItems&, std::size_t from, std::size_t to, std::uint32_t* out);
#ifdef PHI_FAST_X86
std::size_t bound_avx2(const BoundQuery&, const BoundItems&, std::size_t from, std::size_t to, std::uint32_t* out);
std::size_t bound_avx512(const BoundQuery&, const BoundItems&, std::size_t from, std::size_t to, std::uint32_t* out);
#endif

}  // namespace phi_fast::syntax
