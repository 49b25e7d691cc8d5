#include "bindings/documents.h"

// The Arrow C data interface (arrow.apache.org/docs/format/CDataInterface.html): two structs, an ABI and no library.
extern "C" {
struct ArrowSchema {
    const char* format;
    const char* name;
    const char* metadata;
    std::int64_t flags;
    std::int64_t n_children;
    ArrowSchema** children;
    ArrowSchema* dictionary;
    void (*release)(ArrowSchema*);
    void* private_data;
};
struct ArrowArray {
    std::int64_t length, null_count, offset, n_buffers, n_children;
    const void** buffers;
    ArrowArray** children;
    ArrowArray* dictionary;
    void (*release)(ArrowArray*);
    void* private_data;
};
}

namespace phi_fast::bindings {

std::size_t Documents::bytes() const {
    std::size_t sum = 0;
    for (const std::string_view text : texts) sum += text.size();
    return sum;
}

Documents documents_from_sequence(const py::sequence& documents) {
    Documents d;
    const py::tuple items(documents);  // keeps them alive: a lazy sequence makes each as it is asked for
    d.owner = items;
    for (const py::handle& item : items) {
        if (PyUnicode_Check(item.ptr())) {
            Py_ssize_t size = 0;
            const char* text = PyUnicode_AsUTF8AndSize(item.ptr(), &size);
            if (text) {
                d.texts.emplace_back(text, static_cast<std::size_t>(size));
            } else {
                PyErr_Clear();
                d.missing.emplace_back(d.texts.size(), "a lone surrogate stands in the text");
                d.texts.emplace_back();
            }
        } else if (item.is_none()) {
            d.missing.emplace_back(d.texts.size(), "the text is null, expected a string");
            d.texts.emplace_back();
        } else {
            d.held.push_back(std::make_unique<Bytes>(item));
            d.texts.emplace_back(d.held.back()->data() ? d.held.back()->text() : std::string_view(""));
        }
    }
    return d;
}

Documents documents_from_arrow(const py::object& array) {
    const py::tuple capsules = array.attr("__arrow_c_array__")();
    const py::object schema_capsule = capsules[0], array_capsule = capsules[1];
    auto* schema = static_cast<ArrowSchema*>(PyCapsule_GetPointer(schema_capsule.ptr(), "arrow_schema"));
    auto* values = static_cast<ArrowArray*>(PyCapsule_GetPointer(array_capsule.ptr(), "arrow_array"));
    if (!schema || !values) throw py::error_already_set();
    const std::string_view format = schema->format;
    const bool large = format == "U" || format == "Z";
    if (!large && format != "u" && format != "z")
        throw py::type_error("expected a string or large_string array, got Arrow format \"" + std::string(format) + "\"");
    Documents d;
    d.owner = capsules;
    d.texts.reserve(static_cast<std::size_t>(values->length));
    const auto* valid = static_cast<const std::uint8_t*>(values->buffers[0]);
    const auto* text = static_cast<const char*>(values->buffers[2]);
    for (std::int64_t row = 0; row < values->length; ++row) {
        const std::int64_t at = row + values->offset;
        if (valid && !((valid[at / 8] >> (at % 8)) & 1)) {
            d.missing.emplace_back(d.texts.size(), "the text is null, expected a string");
            d.texts.emplace_back();
            continue;
        }
        const auto place = [&](std::int64_t i) {
            return large ? static_cast<const std::int64_t*>(values->buffers[1])[i]
                         : static_cast<std::int64_t>(static_cast<const std::int32_t*>(values->buffers[1])[i]);
        };
        const auto size = static_cast<std::size_t>(place(at + 1) - place(at));
        d.texts.emplace_back(size ? text + place(at) : "", size);
    }
    return d;
}

}  // namespace phi_fast::bindings
