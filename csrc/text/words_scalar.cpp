// Baseline build of the kernels: a table look-up a byte. The twin the vector builds are held against.
#include <array>

#include "text/words_kernels.h"

namespace phi_fast {
namespace {

constexpr std::uint8_t kWord = 1, kHigh = 2, kQuote = 4, kBackslash = 8, kControl = 16, kEscapable = 32;

constexpr std::array<std::uint8_t, 256> make_classes() {
    std::array<std::uint8_t, 256> c{};
    for (int i = 0; i < 256; ++i) {
        const bool word = (i >= '0' && i <= '9') || (i >= 'A' && i <= 'Z') || (i >= 'a' && i <= 'z') || i == '_';
        std::uint8_t v = word ? kWord : 0;
        if (i >= 0x80) v |= kHigh;
        if (i == '"') v |= kQuote | kEscapable;
        if (i == '\\') v |= kBackslash | kEscapable;
        if (i < 0x20) v |= kControl;
        for (char e : {'/', 'b', 'f', 'n', 'r', 't', 'u'})
            if (i == e) v |= kEscapable;
        c[static_cast<std::size_t>(i)] = v;
    }
    return c;
}
constexpr auto kClasses = make_classes();

struct Level {
    template <bool Json>
    static Masks classify(const std::uint8_t* p) {
        Masks m{};
        // Eight bytes at a time: bit b of eight class bytes is gathered into eight adjacent bits by one multiply.
        auto gather = [](std::uint64_t classes, int bit) {
            return (((classes >> bit) & 0x0101010101010101ull) * 0x0102040810204080ull) >> 56;
        };
        for (int k = 0; k < 8; ++k) {
            std::uint64_t classes = 0;
            for (int j = 0; j < 8; ++j) classes |= static_cast<std::uint64_t>(kClasses[p[8 * k + j]]) << (8 * j);
            const int at = 8 * k;
            m.word |= gather(classes, 0) << at;
            m.high |= gather(classes, 1) << at;
            if constexpr (Json) {
                m.quote |= gather(classes, 2) << at;
                m.backslash |= gather(classes, 3) << at;
                m.control |= gather(classes, 4) << at;
                m.escapable |= gather(classes, 5) << at;
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

extern const Kernels kScalarKernels = make_kernels<Level>("scalar");

}  // namespace phi_fast
