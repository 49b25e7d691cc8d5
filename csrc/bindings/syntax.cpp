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
using Converted = py::array_t<std::uint8_t, py::array::c_style | py::array::forcecast>;
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
        AlphaForm().make(source_, tree_, sequences_, first, first, count, out);
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

void check_tree(const syntax::TreeView& tree) {
    if (tree.labels.size() != tree.sizes.size()) throw std::invalid_argument("a tree has one size for each label");
    // Sizes must nest: each subtree inside its parent's, the first one all of it.
    std::vector<std::uint64_t> ends;
    const std::uint64_t n = tree.sizes.size();
    for (std::uint64_t i = 0; i < n; ++i) {
        while (!ends.empty() && ends.back() <= i) ends.pop_back();
        const std::uint64_t size = tree.sizes[i], end = i + size;
        if (size == 0 || end > (ends.empty() ? n : ends.back()) || (i > 0 && ends.empty()))
            throw std::invalid_argument("sizes are not those of a tree in preorder");
        ends.push_back(end);
    }
    if (n && tree.sizes[0] != n) throw std::invalid_argument("sizes are not those of one tree in preorder");
}

struct Pair {
    std::uint32_t query, item, distance;
};

// Steps on several threads without the GIL; Ctrl-C ends them.
template <class Step>
void in_parallel(std::size_t steps, unsigned threads, Step run) {
    bool interrupted = false;
    {
        const py::gil_scoped_release release;
        parallel_for(
            steps, std::max(threads, 1u), [&](std::size_t step, unsigned) { run(step); },
            [&] {
                const py::gil_scoped_acquire acquire;
                interrupted = PyErr_CheckSignals() != 0;
                return !interrupted;
            });
    }
    if (interrupted) throw py::error_already_set();
}

// Trees back to back: their node types, the sizes of their subtrees, and where each starts.
class Forest {
public:
    Forest(const Types& types, const Symbols& sizes, const Offsets& offsets) {
        const auto t = view(types);
        const auto s = view(sizes);
        const auto o = view(offsets);
        if (t.size() != s.size()) throw std::invalid_argument("a tree has one size for each label");
        if (o.empty() || o.front() != 0 || o.back() != t.size() || !std::is_sorted(o.begin(), o.end()))
            throw std::invalid_argument("offsets do not fit the node types");
        labels_.assign(t.begin(), t.end());
        for (std::size_t i = 0; i + 1 < o.size(); ++i) {
            trees_.push_back({std::span(labels_).subspan(o[i], o[i + 1] - o[i]), s.subspan(o[i], o[i + 1] - o[i])});
            check_tree(trees_.back());
        }
    }
    const syntax::TreeView& operator[](std::uint32_t i) const { return trees_.at(i); }
    std::size_t size() const { return trees_.size(); }

private:
    std::vector<std::uint32_t> labels_;
    std::vector<syntax::TreeView> trees_;
};

py::array_t<std::uint32_t> tree_distances(const py::array_t<Pair, py::array::c_style>& pairs, const Types& types,
                                          const Symbols& sizes, const Offsets& offsets, const Types& item_types,
                                          const Symbols& item_sizes, const Offsets& item_offsets, unsigned threads) {
    const Forest queries(types, sizes, offsets), items(item_types, item_sizes, item_offsets);
    const auto wanted = view(pairs);
    for (const Pair& pair : wanted)
        if (pair.query >= queries.size() || pair.item >= items.size()) throw std::invalid_argument("a pair names no tree");
    std::vector<std::uint32_t> distances(wanted.size());
    constexpr std::size_t kStep = 16;
    in_parallel((wanted.size() + kStep - 1) / kStep, threads, [&](std::size_t step) {
        for (std::size_t i = step * kStep; i < std::min(wanted.size(), (step + 1) * kStep); ++i)
            distances[i] = syntax::tree_distance(queries[wanted[i].query], items[wanted[i].item]);
    });
    return to_numpy(std::move(distances));
}

class TreeNeighbours {
public:
    TreeNeighbours(const Types& types, const Offsets& offsets) : neighbours_(check(types, offsets), view(offsets)) {}

    py::array_t<Pair> within(const Types& types, const Offsets& offsets, double tau, unsigned threads) const {
        const auto all = check(types, offsets);
        const auto o = view(offsets);
        return search(o.empty() ? 0 : o.size() - 1, [&](std::size_t q) { return all.subspan(o[q], o[q + 1] - o[q]); }, tau, threads);
    }

    // The same for arrays where they lie: joining a hundred thousand takes longer than comparing them.
    py::array_t<Pair> within_each(const py::iterable& sequences, double tau, unsigned threads) const {
        const py::tuple held(sequences);  // keeps every array alive, whatever happens to a list meanwhile
        std::vector<Converted> converted;
        std::vector<std::span<const std::uint8_t>> spans;
        spans.reserve(held.size());
        const std::size_t count = held.size();
        for (std::size_t i = 0; i < count; ++i) {
            // The arrays' heads lie scattered over memory: each is fetched well before it is read.
            constexpr std::size_t kAhead = 16;
            if (i + kAhead < count) {
                const auto* ahead = reinterpret_cast<const char*>(PyTuple_GET_ITEM(held.ptr(), static_cast<py::ssize_t>(i + kAhead)));
                __builtin_prefetch(ahead);
                __builtin_prefetch(ahead + 64);
            }
            const py::handle one = PyTuple_GET_ITEM(held.ptr(), static_cast<py::ssize_t>(i));
            if (py::isinstance<Types>(one)) {
                const auto array = py::reinterpret_borrow<Types>(one);
                if (array.ndim() == 1) {
                    spans.push_back(view(array));
                    continue;
                }
            }
            const auto array = Converted::ensure(one);
            if (!array || array.ndim() != 1) throw std::invalid_argument("node types are an array of one dimension");
            converted.push_back(array);
            spans.push_back(view(array));
        }
        return search(spans.size(), [&](std::size_t q) { return spans[q]; }, tau, threads);
    }

private:
    template <class Sequence>
    py::array_t<Pair> search(std::size_t queries, Sequence sequence, double tau, unsigned threads) const {
        if (!(tau > 0 && tau <= 1)) throw std::invalid_argument("tau must be above 0 and at most 1");
        constexpr std::size_t kStep = 256;
        const std::size_t steps = (queries + kStep - 1) / kStep;
        std::vector<std::vector<Pair>> found(steps);
        in_parallel(steps, threads, [&](std::size_t step) {
            std::vector<Neighbour> near;
            for (std::size_t q = step * kStep; q < std::min(queries, (step + 1) * kStep); ++q) {
                constexpr std::size_t kAhead = 8;
                if (q + kAhead < queries) {
                    const auto ahead = sequence(q + kAhead);
                    for (std::size_t byte = 0; byte < std::min<std::size_t>(ahead.size(), 256); byte += 64)
                        __builtin_prefetch(ahead.data() + byte);
                }
                neighbours_.within(sequence(q), tau, near);
                for (const Neighbour& n : near) found[step].push_back({static_cast<std::uint32_t>(q), n.item, n.distance});
            }
        });
        std::vector<Pair> pairs;
        for (const auto& part : found) pairs.insert(pairs.end(), part.begin(), part.end());
        return to_numpy(std::move(pairs));
    }

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
            const syntax::TreeView left{view(a), view(a_sizes)}, right{view(b), view(b_sizes)};
            check_tree(left);
            check_tree(right);
            const py::gil_scoped_release release;
            return syntax::tree_distance(left, right);
        },
        py::arg("a"), py::arg("a_sizes"), py::arg("b"), py::arg("b_sizes"));

    m.def("tree_distances", &tree_distances, py::arg("pairs"), py::arg("types"), py::arg("sizes"), py::arg("offsets"),
          py::arg("item_types"), py::arg("item_sizes"), py::arg("item_offsets"), py::arg("threads"));

    py::class_<TreeNeighbours>(m, "TreeNeighbours", "Which of many trees are close to others, by node types.")
        .def(py::init<const Types&, const Offsets&>(), py::arg("types"), py::arg("offsets"))
        .def("within", &TreeNeighbours::within, py::arg("types"), py::arg("offsets"), py::arg("tau"), py::arg("threads"))
        .def("within_each", &TreeNeighbours::within_each, py::arg("sequences"), py::arg("tau"), py::arg("threads"));
}

}  // namespace phi_fast::bindings
