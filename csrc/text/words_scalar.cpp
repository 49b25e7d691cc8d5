// Baseline build of the kernels: a table look-up a byte. The twin the vector builds are held against.
#include <array>

#include "text/words_kernels.h"

namespace phi_fast {
namespace {

// Bit 0: a word character. Bit 32: a byte that means something else as well, looked at one by one below. Shifted by the
// byte's place and ORed together, 32 of these give both masks at once: a load, a shift and an OR a byte.
template <bool Json>
constexpr std::array<std::uint64_t, 256> make_classes() {
    std::array<std::uint64_t, 256> c{};
    for (int i = 0; i < 256; ++i) {
        const bool word = (i >= '0' && i <= '9') || (i >= 'A' && i <= 'Z') || (i >= 'a' && i <= 'z') || i == '_';
        const bool special = i >= 0x80 || (Json && (i < 0x20 || i == '"' || i == '\\'));
        c[static_cast<std::size_t>(i)] = (word ? 1ull : 0) | (special ? 1ull << 32 : 0);
    }
    return c;
}

bool escapable(std::uint8_t c) {
    switch (c) {
        case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't': case 'u': return true;
        default: return false;
    }
}

struct Level {
    template <bool Json>
    static Masks classify(const std::uint8_t* p) {
        static constexpr auto kClasses = make_classes<Json>();
        std::uint64_t low = 0, high = 0;
#pragma GCC unroll 32
        for (int j = 0; j < 32; ++j) {
            low |= kClasses[p[j]] << j;
            high |= kClasses[p[32 + j]] << j;
        }
        Masks m{};
        m.word = (low & 0xffffffffu) | high << 32;
        std::uint64_t special = low >> 32 | (high & 0xffffffff00000000ull);
        if (Json && escapable(p[0])) m.escapable = 1;  // the block before may end in a backslash
        while (special) {
            const int i = std::countr_zero(special);
            const std::uint64_t bit = special & -special;
            special ^= bit;
            const std::uint8_t c = p[i];
            if (c >= 0x80) {
                m.high |= bit;
            } else if constexpr (Json) {
                if (c == '\\') {
                    m.backslash |= bit;
                    if (i < 63 && escapable(p[i + 1])) m.escapable |= bit << 1;
                } else if (c == '"') {
                    m.quote |= bit;
                } else {
                    m.control |= bit;
                }
            }
        }
        return m;
    }
    static std::uint64_t equal(const std::uint8_t* p, std::uint8_t c) {
        std::uint64_t m = 0;
        for (int i = 0; i < 64; ++i) m |= static_cast<std::uint64_t>(p[i] == c) << i;
        return m;
    }
    static void emit(std::uint64_t mask, std::uint32_t base, std::uint32_t* out) {
        while (mask) {
            *out++ = base + static_cast<std::uint32_t>(std::countr_zero(mask));
            mask &= mask - 1;
        }
    }
    static std::size_t probe(const std::uint64_t* keys, std::size_t from, std::size_t to, const Prefilter& filter,
                             std::uint32_t* passed) {
        return probe_scalar(keys, from, to, filter, passed);
    }
};

}  // namespace

extern constinit const Kernels kScalarKernels = make_kernels<Level>("scalar");

}  // namespace phi_fast
