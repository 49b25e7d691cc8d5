// Python source to sequences of node types, and how far apart they are.
#include <algorithm>

#include "bindings/documents.h"
#include "bindings/native.h"
#include "parallel.h"
#include "syntax/neighbours.h"
#include "syntax/sequence.h"

namespace phi_fast::bindings {
namespace {

using syntax::AlphaForm;
using syntax::FunctionRange;
using syntax::Neighbour;
using syntax::Neighbours;
using syntax::Sequences;

using Symbols = py::array_t<std::uint32_t, py::array::c_style>;
using Types = py::array_t<std::uint8_t, py::array::c_style>;
using Offsets = py::array_t<std::uint64_t, py::array::c_style>;

template <class Array>
auto view(const Array& a) {
    return std::span(a.data(), static_cast<std::size_t>(a.size()));
}

class ParsedSource {
public:
    explicit ParsedSource(const py::object& source) {
        const Bytes bytes(source);
        if (bytes.size() > kMaxSource) throw std::invalid_argument("the source is longer than 1 GiB");
        source_ = bytes.text();
        const py::gil_scoped_release release;
        syntax::Parser().parse(source_, tree_);
        syntax::preorder(tree_, sequences_);
    }
    py::array_t<std::uint8_t> types() const { return copy(sequences_.types); }
    py::array_t<std::uint32_t> sizes() const { return copy(sequences_.sizes); }
    py::array_t<FunctionRange> functions() const { return copy(sequences_.functions); }
    std::uint32_t errors() const { return tree_.errors; }
    py::array_t<std::uint32_t> alpha(std::uint32_t first, std::uint32_t count) const {
        if (first > sequences_.types.size() || count > sequences_.types.size() - first)
            throw std::invalid_argument("these nodes are not in the tree");
        std::vector<std::uint32_t> out;
        AlphaForm().make(source_, tree_, sequences_, first, count, out);
        return to_numpy(std::move(out));
    }

private:
    static constexpr std::size_t kMaxSource = 1 << 30;
    template <class T>
    static py::array_t<T> copy(const std::vector<T>& v) {
        return to_numpy(std::vector<T>(v));
    }

    std::string source_;
    syntax::Tree tree_;
    Sequences sequences_;
};

void check_tree(const Symbols& labels, const Symbols& sizes) {
    if (labels.size() != sizes.size()) throw std::invalid_argument("a tree has one size for each label");
    // Sizes must nest: each subtree inside its parent's, the first one all of it.
    std::vector<std::uint64_t> ends;
    const auto n = static_cast<std::uint64_t>(sizes.size());
    for (std::uint64_t i = 0; i < n; ++i) {
        while (!ends.empty() && ends.back() <= i) ends.pop_back();
        const std::uint64_t size = sizes.data()[i], end = i + size;
        if (size == 0 || end > (ends.empty() ? n : ends.back()) || (i > 0 && ends.empty()))
            throw std::invalid_argument("sizes are not those of a tree in preorder");
        ends.push_back(end);
    }
    if (n && sizes.data()[0] != n) throw std::invalid_argument("sizes are not those of one tree in preorder");
}

struct Pair {
    std::uint32_t query, item, distance;
};

class TreeNeighbours {
public:
    TreeNeighbours(const Types& types, const Offsets& offsets) : neighbours_(check(types, offsets), view(offsets)) {}

    py::array_t<Pair> within(const Types& types, const Offsets& offsets, double tau, unsigned threads) const {
        if (!(tau > 0 && tau <= 1)) throw std::invalid_argument("tau must be above 0 and at most 1");
        const auto all = check(types, offsets);
        const std::size_t queries = offsets.size() ? static_cast<std::size_t>(offsets.size()) - 1 : 0;
        constexpr std::size_t kStep = 256;
        const std::size_t items = (queries + kStep - 1) / kStep;
        std::vector<std::vector<Pair>> found(items);
        bool interrupted = false;
        {
            const py::gil_scoped_release release;
            parallel_for(
                items, std::max(threads, 1u),
                [&](std::size_t step, unsigned) {
                    std::vector<Neighbour> near;
                    for (std::size_t q = step * kStep; q < std::min(queries, (step + 1) * kStep); ++q) {
                        const std::uint64_t from = offsets.data()[q];
                        neighbours_.within(all.subspan(from, offsets.data()[q + 1] - from), tau, near);
                        for (const Neighbour& n : near) found[step].push_back({static_cast<std::uint32_t>(q), n.item, n.distance});
                    }
                },
                [&] {
                    const py::gil_scoped_acquire acquire;
                    interrupted = PyErr_CheckSignals() != 0;
                    return !interrupted;
                });
        }
        if (interrupted) throw py::error_already_set();
        std::vector<Pair> pairs;
        for (const auto& part : found) pairs.insert(pairs.end(), part.begin(), part.end());
        return to_numpy(std::move(pairs));
    }

private:
    static std::span<const std::uint8_t> check(const Types& types, const Offsets& offsets) {
        const auto o = view(offsets);
        if (!o.empty() && (o.back() > static_cast<std::uint64_t>(types.size()) || !std::is_sorted(o.begin(), o.end())))
            throw std::invalid_argument("offsets do not fit the node types");
        return view(types);
    }

    Neighbours neighbours_;
};

py::tuple node_types() {
    py::list names;
    for (int t = 0; t < static_cast<int>(syntax::Type::count); ++t) names.append(syntax::type_name(static_cast<syntax::Type>(t)));
    return py::tuple(names);
}

}  // namespace

void bind_syntax(py::module_& m) {
    PYBIND11_NUMPY_DTYPE(FunctionRange, first, count, body_first, body_count, start, stop, whole);
    PYBIND11_NUMPY_DTYPE(Pair, query, item, distance);
    m.attr("NODE_TYPES") = node_types();

    py::class_<ParsedSource>(m, "ParsedSource", "The preorder node types of Python source, without its objects.")
        .def(py::init<const py::object&>(), py::arg("source"))
        .def_property_readonly("types", &ParsedSource::types)
        .def_property_readonly("sizes", &ParsedSource::sizes)
        .def_property_readonly("functions", &ParsedSource::functions)
        .def_property_readonly("errors", &ParsedSource::errors)
        .def("alpha", &ParsedSource::alpha, py::arg("first"), py::arg("count"));

    m.def(
        "sequence_distance",
        [](const Symbols& a, const Symbols& b, std::optional<std::uint32_t> cutoff) {
            const py::gil_scoped_release release;
            const auto longest = static_cast<std::uint32_t>(std::max(a.size(), b.size()));
            const std::uint32_t limit = std::min(cutoff.value_or(longest), longest);
            return syntax::Pattern(view(a)).distance(view(b), limit);
        },
        py::arg("a"), py::arg("b"), py::arg("cutoff"));
    m.def(
        "tree_distance",
        [](const Symbols& a, const Symbols& a_sizes, const Symbols& b, const Symbols& b_sizes) {
            check_tree(a, a_sizes);
            check_tree(b, b_sizes);
            const py::gil_scoped_release release;
            return syntax::tree_distance({view(a), view(a_sizes)}, {view(b), view(b_sizes)});
        },
        py::arg("a"), py::arg("a_sizes"), py::arg("b"), py::arg("b_sizes"));

    py::class_<TreeNeighbours>(m, "TreeNeighbours", "Which of many trees are close to others, by node types.")
        .def(py::init<const Types&, const Offsets&>(), py::arg("types"), py::arg("offsets"))
        .def("within", &TreeNeighbours::within, py::arg("types"), py::arg("offsets"), py::arg("tau"), py::arg("threads"));
}

}  // namespace phi_fast::bindings
