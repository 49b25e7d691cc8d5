// Choice of the SIMD level, and what is the same at every level: splitting by the Unicode tables, normal forms.
#include "text/words.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "text/unicode.h"
#include "text/words_kernels.h"

namespace phi_fast {

extern const Kernels kScalarKernels;
#ifdef PHI_FAST_X86
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

void WordSpans::grow(std::size_t wanted) {
    const std::size_t grown = capacity * 2 > wanted ? capacity * 2 : wanted + 1024;
    auto* a = static_cast<std::uint32_t*>(std::realloc(start, grown * sizeof(std::uint32_t)));
    if (a) start = a;
    auto* b = static_cast<std::uint32_t*>(std::realloc(stop, grown * sizeof(std::uint32_t)));
    if (b) stop = b;
    if (!a || !b) throw std::bad_alloc();
    capacity = grown;
}

void WordSpans::release() {
    std::free(start);
    std::free(stop);
    start = stop = nullptr;
    count = capacity = 0;
}

namespace {

struct Levels {
    const Kernels* all[4] = {};
    const char* names[4] = {};
    int count = 0;
    const Kernels* used = nullptr;

    void add(const Kernels& k) {
        all[count] = &k;
        names[count++] = k.name;
    }
    Levels() {
        add(kScalarKernels);
#ifdef PHI_FAST_X86
        __builtin_cpu_init();
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
            __builtin_cpu_supports("popcnt")) {
            add(kAvx2Kernels);
            if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2"))
                add(kAvx512Kernels);
        }
#endif
        used = all[count - 1];
    }
};

Levels& levels() {
    static Levels the;
    return the;
}

}  // namespace

const Kernels& kernels() { return *levels().used; }
const char* const* available_levels() { return levels().names; }
bool use_level(const char* name) {
    Levels& l = levels();
    for (int i = 0; i < l.count; ++i) {
        if (std::strcmp(l.names[i], name) == 0) {
            l.used = l.all[i];
            return true;
        }
    }
    return false;
}

namespace {

// Offset of the first byte >= 0x80 in [from, to), or `to`.
std::size_t next_non_ascii(const std::uint8_t* text, std::size_t from, std::size_t to) {
    for (; from + 8 <= to; from += 8) {
        std::uint64_t v;
        std::memcpy(&v, text + from, 8);
        if (v & 0x8080808080808080ull) break;
    }
    while (from < to && text[from] < 0x80) ++from;
    return from;
}

}  // namespace

std::size_t refine(const std::uint8_t* text, const WordSpans& runs, WordSpans& out) {
    out.count = 0;
    const std::size_t text_end = runs.count ? runs.stop[runs.count - 1] : 0;
    for (std::size_t r = 0; r < runs.count; ++r) {
        // Whole stretches of ASCII runs, the usual case even in a text with some other characters, are copied as they are.
        const std::size_t high = next_non_ascii(text, runs.start[r], text_end);
        std::size_t ascii = r;
        while (ascii < runs.count && runs.stop[ascii] <= high) ++ascii;
        if (ascii > r) {
            out.reserve(out.count + (ascii - r));
            std::memcpy(out.start + out.count, runs.start + r, (ascii - r) * sizeof(std::uint32_t));
            std::memcpy(out.stop + out.count, runs.stop + r, (ascii - r) * sizeof(std::uint32_t));
            out.count += ascii - r;
            r = ascii;
        }
        if (r == runs.count) break;
        const std::uint8_t* p = text + runs.start[r];
        const std::uint8_t* const end = text + runs.stop[r];
        // A run of b bytes splits into at most (b + 1) / 2 words.
        out.reserve(out.count + static_cast<std::size_t>(end - p) / 2 + 2);
        bool inside = false;
        std::uint32_t flag = 0;
        while (p < end) {
            const auto at = static_cast<std::uint32_t>(p - text);
            bool is_word = true;
            if (*p < 0x80) {
                ++p;
            } else {
                const char32_t c = decode_utf8(p, end);
                if (c == kInvalidUtf8) return at;
                is_word = unicode_flags(c) & kWordCharacter;
            }
            if (is_word) {
                if (!inside) {
                    out.start[out.count] = at;
                    inside = true;
                    flag = 0;
                }
                if (text[at] >= 0x80) flag = kNonAscii;
            } else if (inside) {
                out.stop[out.count++] = at | flag;
                inside = false;
            }
        }
        if (inside) out.stop[out.count++] = static_cast<std::uint32_t>(end - text) | flag;
    }
    return SIZE_MAX;
}

namespace {

bool is_ascii(const std::uint8_t* p, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i)
        if (p[i] >= 0x80) return false;
    return true;
}

}  // namespace

std::uint64_t hash_normal_form(const std::uint8_t* word, std::size_t size) {
    std::uint64_t hash = hash_word(word, static_cast<std::uint32_t>(size), false);
    if (is_ascii(word, size)) return hash;
    // The fold would make one of letters beyond ASCII that differ in bit 5 of a byte: add the bytes as they are.
    for (std::size_t i = 0; i < size; i += 8) {
        std::uint8_t bytes[8] = {};
        std::memcpy(bytes, word + i, size - i < 8 ? size - i : 8);
        hash = mix128(hash, load8(bytes));
    }
    return hash;
}

void hash_all(const std::uint8_t* text, std::size_t size, const WordSpans& words, bool non_ascii, std::size_t first,
              std::size_t count, std::uint64_t* hashes) {
    kernels().hash_words(text, size, words, first, count, hashes);
    if (!non_ascii) return;
    thread_local std::string normal;
    for (std::size_t i = 0; i < count; ++i) {
        if (!(words.stop[first + i] & kNonAscii)) continue;
        normal.clear();
        nfkc_lower({reinterpret_cast<const char*>(text + words.start[first + i]), words.length(first + i)}, normal);
        hashes[i] = hash_normal_form(reinterpret_cast<const std::uint8_t*>(normal.data()), normal.size());
    }
}

namespace {

std::uint8_t lower_ascii(std::uint8_t c) { return c >= 'A' && c <= 'Z' ? static_cast<std::uint8_t>(c | 0x20) : c; }

bool is_ascii_word(std::uint8_t c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
}

}  // namespace

bool same_word(const std::uint8_t* a, std::size_t a_size, const std::uint8_t* b, std::size_t b_size) {
    if (is_ascii(a, a_size) && is_ascii(b, b_size)) {
        if (a_size != b_size) return false;
        for (std::size_t i = 0; i < a_size; ++i)
            if (lower_ascii(a[i]) != lower_ascii(b[i])) return false;
        return true;
    }
    thread_local std::string left, right;
    left.clear();
    right.clear();
    nfkc_lower({reinterpret_cast<const char*>(a), a_size}, left);
    nfkc_lower({reinterpret_cast<const char*>(b), b_size}, right);
    return left == right;
}

const std::uint8_t* word_end(const std::uint8_t* word, const std::uint8_t* end) {
    while (word < end) {
        if (*word < 0x80) {
            if (!is_ascii_word(*word)) break;
            ++word;
        } else {
            const std::uint8_t* next = word;
            const char32_t c = decode_utf8(next, end);
            if (c == kInvalidUtf8 || !(unicode_flags(c) & kWordCharacter)) break;
            word = next;
        }
    }
    return word;
}

bool has_letter(const std::uint8_t* word, std::size_t size) {
    if (is_ascii(word, size)) {
        for (std::size_t i = 0; i < size; ++i) {
            const std::uint8_t c = word[i] | 0x20;
            if (c >= 'a' && c <= 'z') return true;
        }
        return false;
    }
    std::string normal;
    nfkc_lower({reinterpret_cast<const char*>(word), size}, normal);
    const auto* p = reinterpret_cast<const std::uint8_t*>(normal.data());
    const auto* const end = p + normal.size();
    while (p < end) {
        const char32_t c = decode_utf8(p, end);
        if (c == kInvalidUtf8) return false;
        if (unicode_flags(c) & kLetter) return true;
    }
    return false;
}

}  // namespace phi_fast
