// What the engines know of Unicode: which characters make words, their lower case, and a word's normal form.
//
// The functions are `static inline`, not `inline`: files built for different instruction sets may include this header,
// and the linker must not keep one copy, say the AVX-512 one, for all of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace phi_fast {

namespace unicode_tables {
#include "unicode_tables.inc"
}  // namespace unicode_tables

// Bits of unicode_flags().
inline constexpr std::uint8_t kWordCharacter = 1;  // category L*, M*, N*, or '_'
inline constexpr std::uint8_t kLetter = 2;         // category L*
// The code point can change, or change its neighbours, in the normal form. A word of code points without this bit
// is normalised by lower() of each: one code point for one.
inline constexpr std::uint8_t kNeedsNormalisation = 4;

inline constexpr char32_t kInvalidUtf8 = 0xFFFFFFFF;

// "15.1.0"
const char* unicode_version();

// The normal form of a word: NFKC, then every code point's own lower case (no final-sigma rule). `word` must be valid
// UTF-8; bytes that are not are left out. `out` is replaced, and must not own `word`.
void nfkc_lower(std::string_view word, std::string& out);

// Place of a code point in a table of shared blocks of 2^shift values.
template <class Block>
static inline std::size_t two_stage(const Block& block, unsigned shift, char32_t point) {
    return (std::size_t{block[point >> shift]} << shift) + (point & ((1u << shift) - 1));
}

static inline std::uint8_t unicode_flags(char32_t point) {
    using namespace unicode_tables;
    if (point > 0x10FFFF) return 0;
    return flags_value[two_stage(flags_block, flags_shift, point)];
}

// Lower case where that is one code point; U+0130, whose lower case is two, comes back as it is (and is unstable).
static inline char32_t simple_lower(char32_t point) {
    using namespace unicode_tables;
    if (point > 0x10FFFF) return point;
    const std::int32_t step = lower_step[lower_value[two_stage(lower_block, lower_shift, point)]];
    return static_cast<char32_t>(static_cast<std::int32_t>(point) + step);
}

// Writes 1 to 4 bytes at `out` and returns the place after them. `point` must be at most U+10FFFF.
static inline char* encode_utf8(char32_t point, char* out) {
    if (point < 0x80) {
        *out++ = static_cast<char>(point);
        return out;
    }
    if (point < 0x800) {
        *out++ = static_cast<char>(0xC0 | (point >> 6));
    } else {
        if (point < 0x10000) {
            *out++ = static_cast<char>(0xE0 | (point >> 12));
        } else {
            *out++ = static_cast<char>(0xF0 | (point >> 18));
            *out++ = static_cast<char>(0x80 | ((point >> 12) & 0x3F));
        }
        *out++ = static_cast<char>(0x80 | ((point >> 6) & 0x3F));
    }
    *out++ = static_cast<char>(0x80 | (point & 0x3F));
    return out;
}

static inline void append_utf8(char32_t point, std::string& out) {
    char bytes[4];
    out.append(bytes, static_cast<std::size_t>(encode_utf8(point, bytes) - bytes));
}

// Appends the lower case of one code point: what Python's chr(point).lower() gives.
static inline void append_lower(char32_t point, std::string& out) {
    if (point == 0x130) {
        out.append("i\xCC\x87", 3);
        return;
    }
    append_utf8(simple_lower(point), out);
}

// The code point at `p`, which moves past it. Strict: overlong forms, surrogates, values above U+10FFFF, stray or
// missing continuation bytes, and p == end give kInvalidUtf8 and leave `p` where it was.
static inline char32_t decode_utf8(const std::uint8_t*& p, const std::uint8_t* end) {
    if (p == end) return kInvalidUtf8;
    const std::uint8_t lead = *p;
    if (lead < 0x80) {
        ++p;
        return lead;
    }
    const auto tail = [&](int at) { return (p[at] & 0xC0) == 0x80; };
    const auto left = end - p;
    if (lead < 0xE0) {
        if (lead < 0xC2 || left < 2 || !tail(1)) return kInvalidUtf8;
        const char32_t point = (char32_t{lead} & 0x1F) << 6 | (p[1] & 0x3F);
        p += 2;
        return point;
    }
    if (lead < 0xF0) {
        if (left < 3 || !tail(1) || !tail(2)) return kInvalidUtf8;
        const char32_t point = (char32_t{lead} & 0x0F) << 12 | (char32_t{p[1]} & 0x3F) << 6 | (p[2] & 0x3F);
        if (point < 0x800 || (point >= 0xD800 && point <= 0xDFFF)) return kInvalidUtf8;
        p += 3;
        return point;
    }
    if (lead > 0xF4 || left < 4 || !tail(1) || !tail(2) || !tail(3)) return kInvalidUtf8;
    const char32_t point = (char32_t{lead} & 0x07) << 18 | (char32_t{p[1]} & 0x3F) << 12 |
                           (char32_t{p[2]} & 0x3F) << 6 | (p[3] & 0x3F);
    if (point < 0x10000 || point > 0x10FFFF) return kInvalidUtf8;
    p += 4;
    return point;
}

}  // namespace phi_fast
