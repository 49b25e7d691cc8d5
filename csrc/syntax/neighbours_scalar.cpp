// Baseline build of the histogram bound: the twin the vector builds are held against.
#include "syntax/neighbours_bounds.h"

namespace phi_fast::syntax {

std::size_t bound_scalar(const BoundQuery& query, const BoundItems& items, std::size_t from, std::size_t to, std::uint32_t* out) {
    std::size_t n = 0;
    for (std::size_t k = from; k < to; ++k) {
        const std::uint8_t* other = items.histograms + 32 * k;
        unsigned more = 0;
        for (std::size_t bin = 0; bin < 32; ++bin)
            more += query.histogram[bin] > other[bin] ? static_cast<unsigned>(query.histogram[bin] - other[bin]) : 0u;
        const unsigned less = items.totals[k] > query.total ? static_cast<unsigned>(items.totals[k] - query.total) : 0u;
        const unsigned longer = static_cast<unsigned>(items.lengths[k]) * query.share >> 16;
        out[n] = static_cast<std::uint32_t>(k);
        n += more + less <= (longer > query.cutoff ? longer : query.cutoff);
    }
    return n;
}

}  // namespace phi_fast::syntax
