// Words, SIMD levels and the fields of a JSON line.
#include <cstdlib>
#include <cstring>

#include "bindings/native.h"
#include "jsonl/line.h"
#include "ngram/index.h"
#include "text/unicode.h"

namespace phi_fast::bindings {
namespace {

// (normal form, first character, end character) of every word, as the index sees them.
py::list words_of(const std::string& text) {
    const auto* p = reinterpret_cast<const std::uint8_t*>(text.data());
    WordSpans runs, refined;
    if (text.size() > kMaxDocumentBytes) throw std::invalid_argument("the text is longer than 2 GiB");
    kernels().plain_runs(p, text.size(), runs);
    const std::size_t bad = refine(p, runs, refined);
    if (bad != SIZE_MAX) throw std::invalid_argument("invalid UTF-8 at byte " + std::to_string(bad));
    py::list out;
    std::string normal;
    std::size_t at = 0, characters = 0;
    const auto before = [&](std::size_t byte) {
        for (; at < byte; ++at) characters += (p[at] & 0xC0) != 0x80;
        return characters;
    };
    for (std::size_t i = 0; i < refined.count; ++i) {
        nfkc_lower({text.data() + refined.start[i], refined.length(i)}, normal);
        const std::size_t first = before(refined.start[i]);
        out.append(py::make_tuple(py::str(normal), first, before(refined.stop[i] & ~kNonAscii)));
    }
    return out;
}

py::object json_field(const py::object& line, const std::string& key) {
    const Bytes bytes(line);
    std::size_t start = 0, stop = 0;
    if (!find_field(bytes.text(), key, start, stop)) return py::none();
    return py::make_tuple(start, stop);
}

py::tuple levels() {
    py::list names;
    for (const char* const* n = available_levels(); *n; ++n) names.append(*n);
    return py::tuple(names);
}

}  // namespace

void bind_text(py::module_& m) {
    if (const char* forced = std::getenv("PHI_FAST_NATIVE"); forced && *forced && !use_level(forced)) {
        PyErr_Format(PyExc_ImportError, "PHI_FAST_NATIVE=%s: not a SIMD level of this machine (use scalar, avx2 or avx512)", forced);
        throw py::error_already_set();
    }
    m.attr("SIMD_AVAILABLE") = levels();
    m.attr("NORMALISER") = normaliser_name();
    m.def("simd", [] { return std::string(kernels().name); }, "Name of the SIMD level in use.");
    m.def(
        "use_simd",
        [](const std::string& name) {
            if (!use_level(name.c_str())) throw std::invalid_argument("not a SIMD level of this machine: " + name);
        },
        py::arg("name"), "Switch the SIMD level, for tests and benchmarks; not while a scan runs.");
    m.def("words", &words_of, py::arg("text"), "Words of a text: (normal form, first character, end character).");
    m.def("json_field", &json_field, py::arg("line"), py::arg("key"),
          "Byte span of the raw value of a top-level key in a JSON line, or None.");
}

}  // namespace phi_fast::bindings
