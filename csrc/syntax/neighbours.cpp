#include "syntax/neighbours.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "syntax/nodes.h"

namespace phi_fast::syntax {
namespace {

// The most frequent types of real code have a bin of their own; the rest share.
std::size_t bin(std::uint8_t type) {
    static const auto bins = [] {
        std::array<std::uint8_t, 256> b{};
        constexpr Type kOwn[] = {Type::Name, Type::Constant, Type::Attribute, Type::Call, Type::Expr, Type::Assign, Type::arg,
                                 Type::If, Type::Compare, Type::Return, Type::BinOp, Type::Subscript, Type::keyword, Type::Tuple,
                                 Type::List, Type::For, Type::FunctionDef, Type::arguments, Type::Add, Type::BoolOp, Type::UnaryOp,
                                 Type::Slice, Type::ListComp, Type::comprehension};
        constexpr std::size_t own = std::size(kOwn);
        for (std::size_t t = 0; t < b.size(); ++t) b[t] = static_cast<std::uint8_t>(own + t % (kBins - own));
        for (std::size_t k = 0; k < own; ++k) b[static_cast<std::size_t>(kOwn[k])] = static_cast<std::uint8_t>(k);
        return b;
    }();
    return bins[type];
}

// max(what a has more, what b has more): at least so many edits turn one into the other.
std::uint32_t bound(const Histogram& a, const Histogram& b) {
    std::uint32_t more = 0, less = 0;
    for (std::size_t k = 0; k < kBins; ++k) {
        const int d = static_cast<int>(a[k]) - static_cast<int>(b[k]);
        more += static_cast<std::uint32_t>(d > 0 ? d : 0);
        less += static_cast<std::uint32_t>(d < 0 ? -d : 0);
    }
    return std::max(more, less);
}

}  // namespace

Histogram histogram(std::span<const std::uint8_t> types) {
    Histogram h{};
    for (const std::uint8_t t : types) {
        std::uint8_t& count = h[bin(t)];
        count = static_cast<std::uint8_t>(count + (count < 255));
    }
    return h;
}

Neighbours::Neighbours(std::span<const std::uint8_t> types, std::span<const std::uint64_t> offsets) {
    const std::size_t count = offsets.empty() ? 0 : offsets.size() - 1;
    items_.resize(count);
    std::iota(items_.begin(), items_.end(), 0u);
    const auto length = [&](std::uint32_t i) { return static_cast<std::uint32_t>(offsets[i + 1] - offsets[i]); };
    std::stable_sort(items_.begin(), items_.end(), [&](std::uint32_t a, std::uint32_t b) { return length(a) < length(b); });
    std::vector<std::uint32_t> symbols;
    for (const std::uint32_t i : items_) {
        const auto own = types.subspan(offsets[i], length(i));
        lengths_.push_back(length(i));
        histograms_.push_back(histogram(own));
        symbols.assign(own.begin(), own.end());
        patterns_.emplace_back(symbols);
    }
}

void Neighbours::within(std::span<const std::uint8_t> types, double tau, std::vector<Neighbour>& out) const {
    out.clear();
    const auto n = static_cast<std::uint32_t>(types.size());
    if (n == 0) return;
    const auto shortest = static_cast<std::uint32_t>(std::max(0.0, std::ceil(tau * n - 1e-6)));
    const double longest = std::floor(n / std::max(tau, 1e-9) + 1e-6);
    const auto from = static_cast<std::size_t>(std::lower_bound(lengths_.begin(), lengths_.end(), shortest) - lengths_.begin());
    std::size_t to = from;
    if (longest >= 4294967295.0) {
        to = lengths_.size();
    } else {
        to = static_cast<std::size_t>(std::upper_bound(lengths_.begin() + static_cast<std::ptrdiff_t>(from), lengths_.end(),
                                                       static_cast<std::uint32_t>(longest)) - lengths_.begin());
    }
    if (from == to) return;
    const Histogram own = histogram(types);
    thread_local std::vector<std::uint32_t> symbols;
    bool converted = false;
    for (std::size_t k = from; k < to; ++k) {
        const std::uint32_t cutoff = cutoff_for(tau, n, lengths_[k]);
        if (bound(own, histograms_[k]) > cutoff) continue;
        if (!converted) {
            symbols.assign(types.begin(), types.end());
            converted = true;
        }
        const std::uint32_t d = patterns_[k].distance(symbols, cutoff);
        if (d <= cutoff) out.push_back({items_[k], d});
    }
    std::sort(out.begin(), out.end(), [](const Neighbour& a, const Neighbour& b) { return a.item < b.item; });
}

}  // namespace phi_fast::syntax
