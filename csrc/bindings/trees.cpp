// TreeIndex: built once from items' solutions, then looks on while documents are scanned for n-grams.
#include "bindings/trees.h"

#include <algorithm>
#include <memory>
#include <string>

namespace phi_fast::bindings {
namespace {

using syntax::characters;
using syntax::TreeMatch;

constexpr std::size_t kMaxItem = 1 << 30;

// Bytes of a document to characters, for all its matches in one pass: a document may hold as many as it has lines.
class CharacterPlaces {
public:
    void count(std::string_view text, const std::vector<TreeMatch>& matches) {
        bytes_.clear();
        for (const TreeMatch& m : matches) {
            bytes_.push_back(m.doc_start);
            bytes_.push_back(m.doc_stop);
        }
        std::sort(bytes_.begin(), bytes_.end());
        bytes_.erase(std::unique(bytes_.begin(), bytes_.end()), bytes_.end());
        characters_.clear();
        std::uint32_t at = 0, before = 0;
        for (const std::uint32_t byte : bytes_) {
            before += characters(text.substr(at, byte - at), byte - at);
            at = byte;
            characters_.push_back(before);
        }
    }
    std::uint32_t of(std::uint32_t byte) const {
        return characters_[static_cast<std::size_t>(std::lower_bound(bytes_.begin(), bytes_.end(), byte) - bytes_.begin())];
    }

private:
    std::vector<std::uint32_t> bytes_, characters_;
};

// The index, and of each item the nodes of its largest tree (0: none to compare).
py::tuple build(const py::sequence& questions, const py::sequence& solutions,
                const py::array_t<std::uint32_t, py::array::c_style>& parts) {
    if (questions.size() != solutions.size() || static_cast<py::ssize_t>(questions.size()) != parts.size())
        throw std::invalid_argument("give one question and one part number for each solution");
    auto index = std::make_unique<TreeIndex>();
    std::vector<std::uint32_t> nodes;
    for (std::size_t i = 0; i < questions.size(); ++i) {
        const Bytes question(questions[i]), solution(solutions[i]);
        if (question.size() + solution.size() > kMaxItem) throw std::invalid_argument("an item is longer than 1 GiB");
        nodes.push_back(index->add(parts.data()[i], question.text(), solution.text()));
        if (i % 256 == 255 && PyErr_CheckSignals() != 0) throw py::error_already_set();
    }
    index->finish();
    return py::make_tuple(std::move(index), to_numpy(std::move(nodes)));
}

}  // namespace

Onlooker tree_onlooker(const TreeIndex* trees, std::vector<TreeRow>& out) {
    if (!trees || trees->trees().empty()) return {};
    struct Scratch {
        syntax::TreeScanner scanner;
        std::vector<TreeMatch> found;
        CharacterPlaces places;
    };
    auto s = std::make_shared<Scratch>(Scratch{syntax::TreeScanner(*trees), {}, {}});
    return [s, &out](std::string_view text, std::uint32_t doc) {
        s->found.clear();
        s->scanner.scan(text, doc, s->found);
        if (s->found.empty()) return false;
        s->places.count(text, s->found);
        for (const TreeMatch& m : s->found) {
            out.push_back({doc, m.part, s->places.of(m.doc_start), s->places.of(m.doc_stop), m.item_start, m.item_stop, m.nodes,
                           m.item_nodes, static_cast<float>(m.tau()), static_cast<float>(m.alpha()),
                           static_cast<std::uint8_t>(m.form), static_cast<std::uint8_t>(m.whole)});
        }
        return true;
    };
}

void bind_trees(py::module_& m) {
    PYBIND11_NUMPY_DTYPE(TreeRow, doc, part, doc_start, doc_end, item_start, item_end, nodes, item_nodes, tau, alpha, form, whole);
    m.attr("MIN_NODES") = syntax::kMinNodes;
    m.attr("MIN_ALPHA_NODES") = syntax::kMinAlphaNodes;
    m.attr("FLOOR_TAU") = syntax::kFloorTau;

    py::class_<TreeIndex>(m, "TreeIndex", "Items' functions and bodies, to look on while documents are scanned.")
        .def_static("build", &build, py::arg("questions"), py::arg("solutions"), py::arg("parts"))
        .def_property_readonly("trees", [](const TreeIndex& x) { return x.trees().size(); });
}

}  // namespace phi_fast::bindings
