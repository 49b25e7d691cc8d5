#include "syntax/neighbours.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string_view>

#include "syntax/neighbours_bounds.h"
#include "syntax/nodes.h"
#include "text/words.h"

namespace phi_fast::syntax {
namespace {

// The most frequent types of real code have a bin of their own; the rest share.
const std::array<std::uint8_t, 256>& bins() {
    static const auto table = [] {
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
    return table;
}

BoundKernel bound_kernel() {
#ifdef PHI_FAST_X86
    // The word kernels' level, which PHI_FAST_NATIVE sets, holds for all engines.
    const std::string_view level = kernels().name;
    if (level == "avx512") return bound_avx512;
    if (level == "avx2") return bound_avx2;
#endif
    return bound_scalar;
}

constexpr std::uint32_t kTable = 4096;  // shorter lengths are looked up, longer ones searched for

std::uint16_t total(const Histogram& h) {
    unsigned sum = 0;
    for (const std::uint8_t count : h) sum += count;
    return static_cast<std::uint16_t>(sum);  // at most 32 * 255
}

}  // namespace

Histogram histogram(std::span<const std::uint8_t> types) {
    // Four tables in turn: counting the same type twice running does not wait for the store of the first.
    alignas(32) std::array<Histogram, 4> parts{};
    const std::array<std::uint8_t, 256>& to = bins();
    std::size_t i = 0;
    if (types.size() <= 4 * 255) {  // no counter of the four passes 255
        for (; i + 4 <= types.size(); i += 4)
            for (std::size_t k = 0; k < 4; ++k) ++parts[k][to[types[i + k]]];
    }
    Histogram h;
    for (std::size_t bin = 0; bin < kBins; ++bin) {
        const unsigned sum = 0u + parts[0][bin] + parts[1][bin] + parts[2][bin] + parts[3][bin];
        h[bin] = static_cast<std::uint8_t>(sum < 255 ? sum : 255);
    }
    for (; i < types.size(); ++i) {
        std::uint8_t& count = h[to[types[i]]];
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
    histograms_.resize(count + kBoundStep);
    totals_.resize(count + kBoundStep);
    short_lengths_.resize(count + kBoundStep);
    std::vector<std::uint32_t> symbols;
    for (const std::uint32_t i : items_) {
        const auto own = types.subspan(offsets[i], length(i));
        const std::size_t k = lengths_.size();
        lengths_.push_back(length(i));
        histograms_[k] = histogram(own);
        totals_[k] = total(histograms_[k]);
        if (length(i) <= kBoundLength) {
            short_lengths_[k] = static_cast<std::uint16_t>(length(i));
            bounded_ = k + 1;
        }
        symbols.assign(own.begin(), own.end());
        patterns_.emplace_back(symbols);
    }
    std::uint32_t k = 0;
    for (std::uint32_t n = 0; n < kTable && k < count; ++n) {
        while (k < count && lengths_[k] < n) ++k;
        shorter_.push_back(k);
    }
}

std::size_t Neighbours::first_of(std::uint64_t length) const {
    if (length < shorter_.size()) return shorter_[length];
    return static_cast<std::size_t>(std::lower_bound(lengths_.begin(), lengths_.end(), length) - lengths_.begin());
}

void Neighbours::within(std::span<const std::uint8_t> types, double tau, std::vector<Neighbour>& out) const {
    out.clear();
    const std::size_t n = types.size();
    if (n == 0 || lengths_.empty()) return;
    const double least = tau * static_cast<double>(n) - 1e-6, most = static_cast<double>(n) / std::max(tau, 1e-9) + 1e-6;
    const std::size_t from = first_of(least > 0 ? static_cast<std::uint64_t>(std::ceil(least)) : 0);
    const std::size_t to = first_of(static_cast<std::uint64_t>(most) + 1);
    if (from >= to) return;

    thread_local std::vector<std::uint32_t> close, symbols;
    std::size_t found = 0, rest = from;
    close.resize(std::max(close.size(), to - from + kBoundStep));
    // (Of a longer item at most (1 - tau) of its length may be edited: a little more in 16 bits, never less.)
    const double share = std::ceil((1.0 - tau) * 65536.0) + 1;
    if (n <= kBoundLength && share < 65536.0 && from < bounded_) {
        rest = std::min(to, bounded_);
        const Histogram own = histogram(types);
        const auto length = static_cast<std::uint32_t>(n);
        const BoundQuery query{own.data(), total(own), static_cast<std::uint16_t>(cutoff_for(tau, length, length)),
                               static_cast<std::uint16_t>(share)};
        found = bound_kernel()(query, {histograms_[0].data(), totals_.data(), short_lengths_.data()}, from, rest, close.data());
    }
    while (rest < to) close[found++] = static_cast<std::uint32_t>(rest++);
    if (!found) return;
    symbols.assign(types.begin(), types.end());
    for (std::size_t i = 0; i < found; ++i) {
        const std::size_t k = close[i];
        const std::uint32_t cutoff = cutoff_for(tau, static_cast<std::uint32_t>(n), lengths_[k]);
        const std::uint32_t d = patterns_[k].distance(symbols, cutoff);
        if (d <= cutoff) out.push_back({items_[k], d});
    }
    std::sort(out.begin(), out.end(), [](const Neighbour& a, const Neighbour& b) { return a.item < b.item; });
}

}  // namespace phi_fast::syntax
