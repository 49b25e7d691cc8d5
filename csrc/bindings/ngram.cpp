// NgramIndex: one call a block, the GIL released around all of it.
#include <algorithm>

#include "bindings/documents.h"
#include "bindings/native.h"
#include "bindings/trees.h"
#include "ngram/index.h"
#include "ngram/scan.h"
#include "parallel.h"

namespace phi_fast::bindings {
namespace {

struct ScanResult {
    std::uint64_t rows = 0, documents = 0, text_bytes = 0, words = 0;
    py::array_t<Match> matches;
    py::array_t<TreeRow> tree_matches;
    py::array_t<DocumentRow> docs;
    py::list rejected;
};

// What both engines find in the same documents.
struct Found : ScanOutput {
    std::vector<TreeRow> tree_matches;
};

ScanResult to_python(Found&& out) {
    ScanResult r{out.rows, out.documents, out.text_bytes, out.words, to_numpy(std::move(out.matches)),
                 to_numpy(std::move(out.tree_matches)), to_numpy(std::move(out.docs)), py::list()};
    for (const Rejected& bad : out.rejected) r.rejected.append(py::make_tuple(bad.row, bad.offset, bad.length, bad.reason));
    return r;
}

using Counts = std::optional<py::array_t<std::uint32_t, py::array::c_style>>;

// Bytes of text scanned without a look at signals: some tenths of a second at the slowest.
constexpr std::size_t kUninterrupted = 64 << 20;

class NgramIndex {
public:
    // With `keep`, the index is a view of that object's memory.
    NgramIndex(Index index, py::object keep) : index_(std::move(index)), keep_(std::move(keep)) {}

    static NgramIndex build(const py::object& text, const py::array_t<std::uint64_t, py::array::c_style>& offsets,
                            std::vector<unsigned> n, const py::bytes& meta) {
        const Bytes bytes(text);
        const std::string_view about = meta;
        const std::span<const std::uint64_t> o(offsets.data(), static_cast<std::size_t>(offsets.size()));
        py::gil_scoped_release release;
        Index index = Index::build(bytes.text(), o, std::move(n), about);
        py::gil_scoped_acquire acquire;
        return NgramIndex(std::move(index), py::none());
    }

    static NgramIndex from_buffer(const py::object& buffer, bool verify) {
        auto bytes = std::make_shared<Bytes>(buffer);
        if (reinterpret_cast<std::uintptr_t>(bytes->data()) % 8 != 0)
            throw std::invalid_argument("the buffer of an n-gram index must be 8-byte aligned");
        Index index = [&] {
            py::gil_scoped_release release;
            return Index::view(bytes->data(), bytes->size(), verify);
        }();
        auto* kept = new std::shared_ptr<Bytes>(bytes);
        py::capsule owner(kept, [](void* p) { delete static_cast<std::shared_ptr<Bytes>*>(p); });
        return NgramIndex(std::move(index), owner);
    }

    py::buffer_info buffer() const {
        const auto b = index_.buffer();
        return {b.data(), static_cast<py::ssize_t>(b.size()), /*readonly=*/true};
    }

    py::array_t<std::uint32_t> part_words() const {
        std::vector<std::uint32_t> v(index_.parts());
        for (std::size_t i = 0; i < v.size(); ++i) v[i] = index_.part_words(i);
        return to_numpy(std::move(v));
    }
    py::array_t<std::uint32_t> weighable() const {
        std::vector<std::uint32_t> v(index_.parts());
        std::vector<std::uint8_t> covered;
        for (std::size_t i = 0; i < v.size(); ++i) v[i] = index_.weighable(i, covered);
        return to_numpy(std::move(v));
    }
    py::bytes part_text(std::size_t part) const {
        if (part >= index_.parts()) throw py::index_error("no such part");
        const auto t = index_.part_text(part);
        return {t.data(), t.size()};
    }
    py::array_t<std::uint8_t> flags() const {
        return py::array_t<std::uint8_t>(static_cast<py::ssize_t>(index_.words()), index_.flags_data());
    }
    void set_common(const py::array_t<std::uint8_t, py::array::c_style>& common) {
        const std::span<const std::uint8_t> c(common.data(), static_cast<std::size_t>(common.size()));
        py::gil_scoped_release release;
        index_.set_common(c);
    }

    ScanResult scan_jsonl(const py::object& lines, const std::string& text_key, const std::optional<std::string>& id_key,
                          const Counts& counts, const TreeIndex* trees, bool every) const {
        const Bytes block(lines);
        std::uint32_t* learn = counts_data(counts);
        Found out;
        {
            py::gil_scoped_release release;
            const LineReader reader(text_key, id_key.value_or(""));
            Scanner(index_, learn, tree_onlooker(trees, out.tree_matches), every).jsonl(reader, block.data(), block.size(), out);
        }
        return to_python(std::move(out));
    }

    ScanResult scan_utf8(const py::sequence& documents, unsigned threads, const Counts& counts, const TreeIndex* trees,
                         bool every) const {
        return scan_all(documents_from_sequence(documents), threads, counts, trees, every);
    }
    ScanResult scan_arrow(const py::object& array, unsigned threads, const Counts& counts, const TreeIndex* trees, bool every) const {
        return scan_all(documents_from_arrow(array), threads, counts, trees, every);
    }

    const Index& index() const { return index_; }

private:
    std::uint32_t* counts_data(const Counts& counts) const {
        if (!counts) return nullptr;
        if (static_cast<std::size_t>(counts->size()) != index_.words())
            throw std::invalid_argument("counts must have one value for every word of the index");
        auto array = *counts;  // the same memory
        return array.mutable_data();
    }

    void scan_range(const Documents& d, std::size_t from, std::size_t to, std::uint32_t* learn, const TreeIndex* trees, bool every,
                    Found& out) const {
        Scanner scanner(index_, learn, tree_onlooker(trees, out.tree_matches), every);
        d.each(
            from, to,
            [&](std::size_t, std::string_view text) {
                scanner.plain(reinterpret_cast<const std::uint8_t*>(text.data()), text.size(), out);
            },
            [&](std::size_t, const std::string& reason) { scanner.reject(reason, out); });
    }

    ScanResult scan_all(const Documents& d, unsigned threads, const Counts& counts, const TreeIndex* trees, bool every) const {
        std::uint32_t* learn = counts_data(counts);
        std::vector<Found> outs;
        bool interrupted = false;
        {
            py::gil_scoped_release release;
            if (threads <= 1 && d.bytes() < kUninterrupted) {
                outs.resize(1);
                scan_range(d, 0, d.texts.size(), learn, trees, every, outs[0]);
            } else {
                constexpr std::size_t kStep = 64;  // documents a work item
                const std::size_t items = (d.texts.size() + kStep - 1) / kStep;
                outs.resize(items);
                parallel_for(
                    items, std::max(threads, 1u),
                    [&](std::size_t i, unsigned) {
                        scan_range(d, i * kStep, std::min(d.texts.size(), (i + 1) * kStep), learn, trees, every, outs[i]);
                    },
                    [&] {
                        py::gil_scoped_acquire acquire;
                        interrupted = PyErr_CheckSignals() != 0;
                        return !interrupted;
                    });
            }
        }
        if (interrupted) throw py::error_already_set();
        Found all;
        for (Found& o : outs) {
            for (Match m : o.matches) {
                m.doc += static_cast<std::uint32_t>(all.docs.size());
                all.matches.push_back(m);
            }
            for (TreeRow m : o.tree_matches) {
                m.doc += static_cast<std::uint32_t>(all.docs.size());
                all.tree_matches.push_back(m);
            }
            for (DocumentRow r : o.docs) {
                r.row += static_cast<std::uint32_t>(all.rows);
                all.docs.push_back(r);
            }
            for (Rejected& r : o.rejected) {
                r.row += all.rows;
                all.rejected.push_back(std::move(r));
            }
            all.rows += o.rows;
            all.documents += o.documents;
            all.text_bytes += o.text_bytes;
            all.words += o.words;
        }
        return to_python(std::move(all));
    }

    Index index_;
    py::object keep_;
};

}  // namespace

void bind_ngram(py::module_& m) {
    PYBIND11_NUMPY_DTYPE(Match, doc, part, n, run, words, doc_start, doc_end, item_start, item_end, coverage, score);
    PYBIND11_NUMPY_DTYPE(DocumentRow, row, padding, offset, length, id_start, id_end);
    m.attr("FLOOR_WORDS") = kFloorWords;
    m.attr("FLOOR_COVERAGE") = kFloorCoverage;
    m.attr("FLOOR_RUN") = kFloorRun;

    py::class_<ScanResult>(m, "ScanResult", "What a scan of one block found.")
        .def_readonly("rows", &ScanResult::rows)
        .def_readonly("documents", &ScanResult::documents)
        .def_readonly("text_bytes", &ScanResult::text_bytes)
        .def_readonly("words", &ScanResult::words)
        .def_readonly("matches", &ScanResult::matches)
        .def_readonly("tree_matches", &ScanResult::tree_matches)
        .def_readonly("docs", &ScanResult::docs)
        .def_readonly("rejected", &ScanResult::rejected);

    py::class_<NgramIndex>(m, "NgramIndex", py::buffer_protocol(), "The n-gram index over one buffer, which memoryview(index) shows.")
        .def_buffer([](const NgramIndex& x) { return x.buffer(); })
        .def_static("build", &NgramIndex::build, py::arg("text"), py::arg("offsets"), py::arg("n"), py::arg("meta"))
        .def_static("from_buffer", &NgramIndex::from_buffer, py::arg("buffer"), py::arg("verify"))
        .def_property_readonly("n",
                               [](const NgramIndex& x) {
                                   const auto ns = x.index().ns();
                                   return std::vector<unsigned>(ns.begin(), ns.end());
                               })
        .def_property_readonly("parts", [](const NgramIndex& x) { return x.index().parts(); })
        .def_property_readonly("words", [](const NgramIndex& x) { return x.index().words(); })
        .def_property_readonly("keys", [](const NgramIndex& x) { return x.index().header().keys; })
        .def_property_readonly("meta",
                               [](const NgramIndex& x) { return py::bytes(x.index().meta().data(), x.index().meta().size()); })
        .def_property_readonly("part_words", &NgramIndex::part_words)
        .def_property_readonly("weighable", &NgramIndex::weighable)
        .def_property_readonly("flags", &NgramIndex::flags)
        .def("part_text", &NgramIndex::part_text, py::arg("part"))
        .def("set_common", &NgramIndex::set_common, py::arg("common"))
        .def("scan_jsonl", &NgramIndex::scan_jsonl, py::arg("lines"), py::arg("text_key"), py::arg("id_key"), py::arg("counts").noconvert(),
             py::arg("trees") = py::none(), py::arg("every") = false)
        .def("scan_utf8", &NgramIndex::scan_utf8, py::arg("documents"), py::arg("threads"), py::arg("counts").noconvert(), py::arg("trees") = py::none(),
             py::arg("every") = false)
        .def("scan_arrow", &NgramIndex::scan_arrow, py::arg("array"), py::arg("threads"), py::arg("counts").noconvert(), py::arg("trees") = py::none(),
             py::arg("every") = false);
}

}  // namespace phi_fast::bindings
