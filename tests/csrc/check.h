// A test is an executable: it counts its checks, prints those that fail, and ends with "N passed, N failed".
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

inline int passed_checks = 0;
inline int failed_checks = 0;

inline void check(bool holds, const char* what, const char* file, int line) {
    if (holds) {
        ++passed_checks;
    } else {
        ++failed_checks;
        std::printf("%s:%d: failed: %s\n", file, line, what);
    }
}
#define CHECK(condition) check((condition), #condition, __FILE__, __LINE__)

inline int report() {
    std::printf("%d passed, %d failed\n", passed_checks, failed_checks);
    return failed_checks == 0 ? 0 : 1;
}

// The generator that tools/make_unicode_tables.py repeats.
struct Random {
    std::uint64_t state = 1;
    std::uint32_t below(std::uint32_t limit) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return static_cast<std::uint32_t>((state >> 33) % limit);
    }
};

// The bytes of a string or a view, for functions that read unsigned ones.
inline const std::uint8_t* bytes(std::string_view text) {
    return reinterpret_cast<const std::uint8_t*>(text.data());
}
