// The syntax channel beside the n-gram scan: what it finds, and how it looks on.
#pragma once

#include <vector>

#include "bindings/native.h"
#include "ngram/scan.h"
#include "syntax/index.h"

namespace phi_fast::bindings {

using syntax::TreeIndex;

struct TreeRow {
    std::uint32_t doc, part;
    std::uint32_t doc_start, doc_end;    // characters of the original text
    std::uint32_t item_start, item_end;  // characters of the solution
    std::uint32_t nodes, item_nodes;
    float tau, alpha;
    std::uint8_t form, whole;  // form: 0 function, 1 body
};

// Compares each document's functions with `trees`' (none where null), into `out`. Both must outlive it.
Onlooker tree_onlooker(const TreeIndex* trees, std::vector<TreeRow>& out);

}  // namespace phi_fast::bindings
