// The module phi_fast._native.
#include "bindings/native.h"

#include "ngram/index.h"

namespace py = pybind11;

PYBIND11_MODULE(_native, m) {
    m.doc() = "The C++ engines of phi_fast. Use them through phi_fast.engines.";
    py::register_exception_translator([](std::exception_ptr p) {
        try {
            if (p) std::rethrow_exception(p);
        } catch (const phi_fast::BadIndex& e) {
            PyErr_SetString(PyExc_ValueError, e.what());
        }
    });
    phi_fast::bindings::bind_text(m);
    phi_fast::bindings::bind_trees(m);  // before the n-gram index, whose scans take a TreeIndex
    phi_fast::bindings::bind_ngram(m);
    phi_fast::bindings::bind_syntax(m);
}
