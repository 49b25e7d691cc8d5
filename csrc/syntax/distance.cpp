#include "syntax/distance.h"

#include <algorithm>
#include <cmath>

namespace phi_fast::syntax {

Pattern::Pattern(std::span<const std::uint32_t> symbols)
    : length_(static_cast<std::uint32_t>(symbols.size())), words_((length_ + 63) / 64) {
    std::uint32_t slots = 16;
    while (slots < 2 * length_ + 2) slots *= 2;
    mask_ = slots - 1;
    keys_.assign(slots, 0);
    rows_.assign(slots, 0);
    table_.assign(words_, 0);
    std::uint32_t rows = 1;
    for (std::uint32_t i = 0; i < length_; ++i) {
        std::uint32_t at = (symbols[i] * 0x9E3779B1u >> 7) & mask_;
        while (rows_[at] && keys_[at] != symbols[i]) at = (at + 1) & mask_;
        if (!rows_[at]) {
            keys_[at] = symbols[i];
            rows_[at] = ++rows;
            table_.resize(static_cast<std::size_t>(rows) * words_, 0);
        }
        table_[static_cast<std::size_t>(rows_[at] - 1) * words_ + i / 64] |= 1ull << (i % 64);
    }
}

const std::uint64_t* Pattern::bits(std::uint32_t symbol) const {
    std::uint32_t at = (symbol * 0x9E3779B1u >> 7) & mask_;
    while (rows_[at] && keys_[at] != symbol) at = (at + 1) & mask_;
    return table_.data() + static_cast<std::size_t>(rows_[at] ? rows_[at] - 1 : 0) * words_;
}

std::uint32_t Pattern::distance(std::span<const std::uint32_t> text, std::uint32_t cutoff) const {
    const auto n = static_cast<std::uint32_t>(text.size());
    const std::uint32_t m = length_;
    if ((n > m ? n - m : m - n) > cutoff) return cutoff + 1;
    if (m == 0) return n;
    std::int64_t score = m;
    if (words_ == 1) {
        std::uint64_t pv = ~0ull, mv = 0;
        const std::uint64_t last = 1ull << (m - 1);
        for (std::uint32_t j = 0; j < n; ++j) {
            const std::uint64_t eq = *bits(text[j]);
            const std::uint64_t d0 = (((eq & pv) + pv) ^ pv) | eq | mv;
            std::uint64_t hp = mv | ~(d0 | pv), hn = d0 & pv;
            score += (hp & last) != 0;
            score -= (hn & last) != 0;
            hp = hp << 1 | 1;
            hn <<= 1;
            pv = hn | ~(d0 | hp);
            mv = hp & d0;
            // Every column still to come takes at most one off.
            if (score > static_cast<std::int64_t>(cutoff) + (n - j - 1)) return cutoff + 1;
        }
        return score > cutoff ? cutoff + 1 : static_cast<std::uint32_t>(score);
    }
    thread_local std::vector<std::uint64_t> pv, mv;
    pv.assign(words_, ~0ull);
    mv.assign(words_, 0);
    const std::uint64_t last = 1ull << ((m - 1) % 64);
    for (std::uint32_t j = 0; j < n; ++j) {
        const std::uint64_t* eq_row = bits(text[j]);
        std::uint64_t hp_in = 1, hn_in = 0;
        for (std::uint32_t w = 0; w < words_; ++w) {
            const std::uint64_t eq = eq_row[w] | hn_in;
            const std::uint64_t d0 = (((eq & pv[w]) + pv[w]) ^ pv[w]) | eq | mv[w];
            std::uint64_t hp = mv[w] | ~(d0 | pv[w]), hn = d0 & pv[w];
            if (w + 1 == words_) {
                score += (hp & last) != 0;
                score -= (hn & last) != 0;
            }
            const std::uint64_t hp_out = hp >> 63, hn_out = hn >> 63;
            hp = hp << 1 | hp_in;
            hn = hn << 1 | hn_in;
            pv[w] = hn | ~(d0 | hp);
            mv[w] = hp & d0;
            hp_in = hp_out;
            hn_in = hn_out;
        }
        if (score > static_cast<std::int64_t>(cutoff) + (n - j - 1)) return cutoff + 1;
    }
    return score > cutoff ? cutoff + 1 : static_cast<std::uint32_t>(score);
}

std::uint32_t cutoff_for(double tau, std::uint32_t n, std::uint32_t m) {
    const double longest = std::max(n, m);
    auto d = static_cast<std::int64_t>(std::floor((1.0 - tau) * longest + 1e-9));
    // Decide by the same division that scores use, so that a pair at tau exactly is in.
    while (d >= 0 && 1.0 - static_cast<double>(d) / std::max(longest, 1.0) < tau - 1e-12) --d;
    return static_cast<std::uint32_t>(std::max<std::int64_t>(d, 0));
}

namespace {

// A tree in postorder (from 1): labels, the first node of each subtree, and the keyroots: of the nodes that share a first
// node, the outermost. The mirrored tree has its children in reverse; two trees are as far apart as their mirror images.
struct Postorder {
    std::vector<std::uint32_t> label, first, keyroots;
    std::vector<std::uint32_t> open;  // ends of the ancestors' subtrees
    std::vector<std::uint8_t> seen;
    std::uint64_t work = 0;  // nodes in the keyroots' subtrees

    void read(const TreeView& t, bool mirrored) {
        const auto n = static_cast<std::uint32_t>(t.labels.size());
        label.resize(n + 1);
        first.resize(n + 1);
        open.clear();
        for (std::uint32_t i = 0; i < n; ++i) {
            while (!open.empty() && open.back() <= i) open.pop_back();
            // By preorder place i, subtree size s and depth d, a node's postorder number is i + s - d. Preorder read backwards
            // is the mirror image's postorder.
            const auto depth = static_cast<std::uint32_t>(open.size());
            const std::uint32_t post = mirrored ? n - i : i + t.sizes[i] - depth;
            label[post] = t.labels[i];
            first[post] = post - t.sizes[i] + 1;
            open.push_back(i + t.sizes[i]);
        }
        seen.assign(n + 2, 0);
        keyroots.clear();
        work = 0;
        for (std::uint32_t k = n; k >= 1; --k) {
            if (seen[first[k]]) continue;
            seen[first[k]] = 1;
            keyroots.push_back(k);
            work += k - first[k] + 1;
        }
        std::reverse(keyroots.begin(), keyroots.end());
    }
};

// Zhang and Shasha's tables, in cells as wide as the largest distance needs.
template <class Cell>
std::uint32_t tree_distance(const Postorder& x, const Postorder& y) {
    const auto n = static_cast<std::uint32_t>(x.label.size() - 1), m = static_cast<std::uint32_t>(y.label.size() - 1);
    const std::size_t width = m + 1;
    thread_local std::vector<Cell> tree, forest;
    tree.resize(std::max(tree.size(), (n + 1) * width));
    forest.resize(std::max(forest.size(), (n + 1) * width));
    for (const std::uint32_t i : x.keyroots) {
        const std::uint32_t li = x.first[i];
        for (const std::uint32_t j : y.keyroots) {
            const std::uint32_t lj = y.first[j];
            Cell* above = forest.data() + (li - 1) * width;
            for (std::uint32_t q = lj - 1; q <= j; ++q) above[q] = static_cast<Cell>(q - (lj - 1));
            for (std::uint32_t p = li; p <= i; ++p) {
                Cell* const row = above + width;
                Cell* const tree_row = tree.data() + p * width;
                auto last = static_cast<Cell>(p - li + 1);
                row[lj - 1] = last;
                const std::uint32_t label = x.label[p];
                // The row of the forest that is left when p's tree is taken away.
                const Cell* const without = forest.data() + (x.first[p] - 1) * width;
                if (x.first[p] == li) {
                    for (std::uint32_t q = lj; q <= j; ++q) {
                        const auto edit = static_cast<Cell>(std::min(above[q], last) + 1);
                        if (y.first[q] == lj) {
                            last = std::min(edit, static_cast<Cell>(above[q - 1] + (label != y.label[q])));
                            tree_row[q] = last;
                        } else {
                            last = std::min(edit, static_cast<Cell>(without[y.first[q] - 1] + tree_row[q]));
                        }
                        row[q] = last;
                    }
                } else {
                    for (std::uint32_t q = lj; q <= j; ++q) {
                        const auto edit = static_cast<Cell>(std::min(above[q], last) + 1);
                        last = std::min(edit, static_cast<Cell>(without[y.first[q] - 1] + tree_row[q]));
                        row[q] = last;
                    }
                }
                above = row;
            }
        }
    }
    return tree[n * width + m];
}

}  // namespace

std::uint32_t tree_distance(const TreeView& a, const TreeView& b) {
    const auto n = static_cast<std::uint32_t>(a.labels.size()), m = static_cast<std::uint32_t>(b.labels.size());
    if (n == 0 || m == 0) return n + m;
    thread_local Postorder x[2], y[2];
    for (const bool mirrored : {false, true}) {
        x[mirrored].read(a, mirrored);
        y[mirrored].read(b, mirrored);
    }
    // The tables take the product of both sides' work: the cheaper way round is often half of it.
    const bool mirrored = x[1].work * y[1].work < x[0].work * y[0].work;
    return n + m < 65535 ? tree_distance<std::uint16_t>(x[mirrored], y[mirrored]) : tree_distance<std::uint32_t>(x[mirrored], y[mirrored]);
}

}  // namespace phi_fast::syntax
