// Shared by the bindings: conversions between buffers, NumPy and the engines. The only place that knows Python.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string_view>
#include <vector>

namespace phi_fast::bindings {

namespace py = pybind11;

// A contiguous read-only view of any object with the buffer protocol, held for as long as the view lives.
class Bytes {
public:
    explicit Bytes(const py::handle& object) {
        if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_SIMPLE) != 0) throw py::error_already_set();
    }
    Bytes(const Bytes&) = delete;
    Bytes& operator=(const Bytes&) = delete;
    ~Bytes() { PyBuffer_Release(&view_); }
    const std::uint8_t* data() const { return static_cast<const std::uint8_t*>(view_.buf); }
    std::size_t size() const { return static_cast<std::size_t>(view_.len); }
    std::string_view text() const { return {static_cast<const char*>(view_.buf), size()}; }

private:
    Py_buffer view_{};
};

// A vector handed over to NumPy without a copy.
template <class T>
py::array_t<T> to_numpy(std::vector<T>&& values) {
    auto* kept = new std::vector<T>(std::move(values));
    py::capsule owner(kept, [](void* p) { delete static_cast<std::vector<T>*>(p); });
    return py::array_t<T>(static_cast<py::ssize_t>(kept->size()), kept->data(), owner);
}

void bind_text(py::module_& m);
void bind_ngram(py::module_& m);
void bind_syntax(py::module_& m);
void bind_trees(py::module_& m);

}  // namespace phi_fast::bindings
