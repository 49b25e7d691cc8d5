// Any bytes: every SIMD level finds the words, hashes and keys that the plain twins find.
#include <cstdio>
#include <cstdlib>

#include "twins.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static twins::Checker checker;
    const std::string wrong = checker.run({reinterpret_cast<const char*>(data), size});
    if (!wrong.empty()) {
        std::fprintf(stderr, "%s\n", wrong.c_str());
        std::abort();
    }
    return 0;
}
