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

// Postorder labels (from 1), leftmost leaves and keyroots of a tree given in preorder.
struct Postorder {
    std::vector<std::uint32_t> label, leftmost, keyroots;

    explicit Postorder(const TreeView& t) {
        const auto n = static_cast<std::uint32_t>(t.labels.size());
        label.resize(n + 1);
        leftmost.resize(n + 1);
        // The postorder number of a node is its preorder place, plus its subtree's size, less its depth (from 1 at place 0:
        // place + size - depth).
        std::vector<std::uint32_t> open;  // ends of the ancestors' subtrees
        for (std::uint32_t i = 0; i < n; ++i) {
            while (!open.empty() && open.back() <= i) open.pop_back();
            const auto depth = static_cast<std::uint32_t>(open.size());
            const std::uint32_t post = i + t.sizes[i] - depth;
            label[post] = t.labels[i];
            leftmost[post] = post - t.sizes[i] + 1;
            open.push_back(i + t.sizes[i]);
        }
        std::vector<bool> seen(n + 2, false);
        for (std::uint32_t k = n; k >= 1; --k) {
            if (!seen[leftmost[k]]) {
                seen[leftmost[k]] = true;
                keyroots.push_back(k);
            }
        }
        std::reverse(keyroots.begin(), keyroots.end());
    }
};

}  // namespace

std::uint32_t tree_distance(const TreeView& a, const TreeView& b) {
    const auto n = static_cast<std::uint32_t>(a.labels.size()), m = static_cast<std::uint32_t>(b.labels.size());
    if (n == 0 || m == 0) return n + m;
    const Postorder x(a), y(b);
    const std::size_t width = m + 1;
    std::vector<std::uint32_t> tree((n + 1) * width), forest((n + 1) * width);
    for (const std::uint32_t i : x.keyroots) {
        for (const std::uint32_t j : y.keyroots) {
            const std::uint32_t li = x.leftmost[i], lj = y.leftmost[j];
            const auto at = [&](std::uint32_t p, std::uint32_t q) -> std::uint32_t& { return forest[p * width + q]; };
            at(li - 1, lj - 1) = 0;
            for (std::uint32_t p = li; p <= i; ++p) at(p, lj - 1) = at(p - 1, lj - 1) + 1;
            for (std::uint32_t q = lj; q <= j; ++q) at(li - 1, q) = at(li - 1, q - 1) + 1;
            for (std::uint32_t p = li; p <= i; ++p) {
                for (std::uint32_t q = lj; q <= j; ++q) {
                    const std::uint32_t edit = std::min(at(p - 1, q), at(p, q - 1)) + 1;
                    if (x.leftmost[p] == li && y.leftmost[q] == lj) {
                        const std::uint32_t d = std::min(edit, at(p - 1, q - 1) + (x.label[p] != y.label[q]));
                        at(p, q) = d;
                        tree[p * width + q] = d;
                    } else {
                        at(p, q) = std::min(edit, at(x.leftmost[p] - 1, y.leftmost[q] - 1) + tree[p * width + q]);
                    }
                }
            }
        }
    }
    return tree[n * width + m];
}

}  // namespace phi_fast::syntax
