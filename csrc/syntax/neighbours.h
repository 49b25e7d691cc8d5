// Which of a few thousand items is a tree close to? Length first, then a histogram of node types, then the distance itself:
// each a lower bound of the next, so nothing is missed.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "syntax/distance.h"

namespace phi_fast::syntax {

inline constexpr std::size_t kBins = 32;
using Histogram = std::array<std::uint8_t, kBins>;

// Counts of node types, folded into kBins counters that stop at 255. Folding and stopping only bring histograms closer, so
// what they differ by stays a lower bound of the edit distance.
Histogram histogram(std::span<const std::uint8_t> types);

struct Neighbour {
    std::uint32_t item;      // in the order they were given
    std::uint32_t distance;
};

class Neighbours {
public:
    // Sequences of node types, back to back: item i is [offsets[i], offsets[i + 1]).
    Neighbours(std::span<const std::uint8_t> types, std::span<const std::uint64_t> offsets);

    // Items with 1 - d / max(n, m) >= tau, by item number.
    void within(std::span<const std::uint8_t> types, double tau, std::vector<Neighbour>& out) const;

    std::size_t size() const { return patterns_.size(); }

private:
    std::size_t first_of(std::uint64_t length) const;  // how many items are shorter

    // All by length, ascending. What the bounds read is padded to whole vectors.
    std::vector<std::uint32_t> lengths_;
    std::vector<std::uint32_t> items_;    // their numbers
    std::vector<std::uint32_t> shorter_;  // by length, up to kTable: how many items are shorter
    std::vector<Histogram> histograms_;
    std::vector<std::uint16_t> totals_;   // sums of the histograms
    std::vector<std::uint16_t> short_lengths_;
    std::size_t bounded_ = 0;             // items beyond are too long for 16-bit lengths
    std::vector<Pattern> patterns_;
};

}  // namespace phi_fast::syntax
