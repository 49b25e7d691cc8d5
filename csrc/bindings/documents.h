// Documents handed over by Python: as a sequence of str, bytes or None, or as an Arrow array of strings.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bindings/native.h"

namespace phi_fast::bindings {

struct Documents {
    std::vector<std::string_view> texts;                        // data() == nullptr: no document
    std::vector<std::pair<std::size_t, std::string>> missing;  // those, in order, with the reason

    std::size_t bytes() const;
    // Calls document(row, text) or rejected(row, reason) for rows [from, to).
    template <class OnDocument, class OnRejected>
    void each(std::size_t from, std::size_t to, OnDocument&& document, OnRejected&& rejected) const {
        auto next = std::lower_bound(missing.begin(), missing.end(), from,
                                     [](const auto& one, std::size_t row) { return one.first < row; });
        for (std::size_t row = from; row < to; ++row) {
            if (texts[row].data()) {
                document(row, texts[row]);
            } else {
                rejected(row, next++->second);
            }
        }
    }

    // What keeps the memory that `texts` points to.
    py::object owner;
    std::vector<std::unique_ptr<Bytes>> held;
};

// Call these with the GIL; the result may be read without it, and must be destroyed with it.
Documents documents_from_sequence(const py::sequence& documents);
Documents documents_from_arrow(const py::object& array);

}  // namespace phi_fast::bindings
