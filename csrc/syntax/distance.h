// How far apart two trees are: edit distance of their preorder sequences (bit-parallel, with a cutoff), and the exact
// tree edit distance of Zhang and Shasha.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace phi_fast::syntax {

// A sequence prepared to be compared with many others: for every symbol, the positions it stands at as bits.
// Symbols are any 32-bit values.
class Pattern {
public:
    explicit Pattern(std::span<const std::uint32_t> symbols);
    std::uint32_t length() const { return length_; }
    // Levenshtein distance to `text`, or `cutoff` + 1 when it is larger than `cutoff`
    // (bit-vector algorithm of Myers 1999 in Hyyrö's 2003 form).
    std::uint32_t distance(std::span<const std::uint32_t> text, std::uint32_t cutoff) const;

private:
    const std::uint64_t* bits(std::uint32_t symbol) const;

    std::uint32_t length_ = 0, words_ = 0, mask_ = 0;
    std::vector<std::uint32_t> keys_;   // open addressing; row + 1 in rows_, 0: empty
    std::vector<std::uint32_t> rows_;
    std::vector<std::uint64_t> table_;  // row 0: a symbol the pattern lacks
};

// Largest distance at which 1 - d / max(n, m) still reaches tau.
std::uint32_t cutoff_for(double tau, std::uint32_t n, std::uint32_t m);

// A tree in preorder: labels, and the number of nodes of each node's subtree.
struct TreeView {
    std::span<const std::uint32_t> labels;
    std::span<const std::uint32_t> sizes;
};

// Tree edit distance with unit costs (Zhang and Shasha 1989). The sequence distance never exceeds it.
std::uint32_t tree_distance(const TreeView& a, const TreeView& b);

}  // namespace phi_fast::syntax
