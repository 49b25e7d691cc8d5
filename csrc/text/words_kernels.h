// The kernels, written once over a 64-byte classifier and compiled once per SIMD level (words_scalar.cpp,
// words_avx2.cpp, words_avx512.cpp each define struct Level and include this file).
//
// Level gives: Masks classify(const uint8_t* p) for 64 readable bytes; emit(mask, base, out) storing base + position
// of every set bit (may write up to 64 values past out, returns nothing); probe_block().
#include <bit>
#include <cstring>

#include "text/words.h"

// The arrays below are read ahead of where they are written, which no vector width can upset.
#if defined(__clang__)
#define PHI_FAST_VECTORISE _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define PHI_FAST_VECTORISE _Pragma("GCC ivdep")
#else
#define PHI_FAST_VECTORISE
#endif

namespace phi_fast {
namespace {

struct Masks {
    std::uint64_t word;       // [A-Za-z0-9_]
    std::uint64_t high;       // >= 0x80
    std::uint64_t quote;      // "
    std::uint64_t backslash;  // backslash
    std::uint64_t control;    // < 0x20
    std::uint64_t escapable;  // one of "\/bfnrtu
};

constexpr std::uint64_t kOdd = 0xAAAAAAAAAAAAAAAAull;

// Positions preceded by an odd run of backslashes (branch-free, after Langdale and Lemire, "Parsing gigabytes of
// JSON per second", 2019). `carry` is 1 when the previous block ended in an escaping backslash.
inline std::uint64_t escaped_positions(std::uint64_t backslash, std::uint64_t& carry) {
    std::uint64_t potential = backslash & ~carry;
    std::uint64_t maybe = (potential << 1) | kOdd;
    std::uint64_t pairs = maybe - potential;
    std::uint64_t escape_and_terminal = pairs ^ kOdd;
    std::uint64_t escaped = escape_and_terminal ^ (backslash | carry);
    carry = (escape_and_terminal & backslash) >> 63;
    return escaped;
}

template <class Level, bool Json, bool Emit>
RunsResult runs(const std::uint8_t* text, std::size_t size, WordSpans* out) {
    RunsResult result;
    std::uint64_t word_carry = 0, escape_carry = 0, any_high = 0;
    std::size_t starts = 0, stops = 0, at = 0;
    alignas(64) std::uint8_t tail[64];
    bool closed = !Json;
    for (; at < size; at += 64) {
        const std::uint8_t* p = text + at;
        if (size - at < 64) [[unlikely]] {
            std::memset(tail, ' ', 64);
            std::memcpy(tail, p, size - at);
            p = tail;
        }
        Masks m = Level::template classify<Json>(p);
        std::uint64_t word = m.word | m.high, high = m.high;
        std::size_t length = 64;
        if constexpr (Json) {
            std::uint64_t escaped = 0;
            if (m.backslash | escape_carry) escaped = escaped_positions(m.backslash, escape_carry);
            std::uint64_t inside = ~0ull;
            std::uint64_t quotes = m.quote & ~escaped;
            if (quotes) {
                length = static_cast<std::size_t>(std::countr_zero(quotes));
                inside = (1ull << length) - 1;
                closed = true;
            }
            if (std::uint64_t bad = (m.control | (escaped & ~m.escapable)) & inside) [[unlikely]] {
                std::size_t where = static_cast<std::size_t>(std::countr_zero(bad));
                if (at + where < size) {
                    result.length = at + where;
                    result.end = (m.control >> where) & 1 ? StringEnd::control_character : StringEnd::bad_escape;
                    return result;
                }
            }
            if (escaped &= inside) {
                result.escapes += static_cast<std::size_t>(std::popcount(escaped));
                if (escaped & Level::equal(p, 'u')) result.unicode_escape = true;
            }
            word &= ~escaped & inside;
            high &= inside;
        }
        any_high |= high;
        if constexpr (Emit) {
            std::uint64_t shifted = (word << 1) | word_carry;
            word_carry = word >> 63;
            out->reserve((starts > stops ? starts : stops) + 128);
            std::uint64_t first = word & ~shifted, last = shifted & ~word;
            Level::emit(first, static_cast<std::uint32_t>(at), out->start + starts);
            Level::emit(last, static_cast<std::uint32_t>(at), out->stop + stops);
            starts += static_cast<std::size_t>(std::popcount(first));
            stops += static_cast<std::size_t>(std::popcount(last));
        }
        if (Json && closed) {
            at += length;
            break;
        }
    }
    if (at > size) at = size;
    if (!closed) result.end = StringEnd::unterminated;
    if constexpr (Emit) {
        if (stops < starts) out->stop[stops++] = static_cast<std::uint32_t>(at);
        // Blank padding ends the last word in the tail block; its end lies at the end of the text at the latest.
        out->count = starts;
    }
    result.length = at;
    result.non_ascii = any_high != 0;
    return result;
}

inline std::uint64_t load8(const std::uint8_t* p) {
    std::uint64_t v;
    std::memcpy(&v, p, 8);
    if constexpr (std::endian::native == std::endian::big) v = __builtin_bswap64(v);
    return v;
}

constexpr std::uint64_t kFold = 0x2020202020202020ull;
constexpr std::uint64_t kSeed0 = 0xA0761D6478BD642Full, kSeed1 = 0xE7037ED1A0B428DBull;

inline std::uint64_t mix128(std::uint64_t a, std::uint64_t b) {
    unsigned __int128 product = static_cast<unsigned __int128>(a ^ kSeed0) * (b ^ kSeed1);
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

// The low `bytes` bytes; 0 gives 0 and 8 or more gives all.
inline std::uint64_t low_bytes(std::uint64_t v, std::uint32_t bytes) {
    return bytes >= 8 ? v : v & ((1ull << (8 * bytes)) - 1);
}

// 16 readable bytes at p.
inline std::uint64_t hash16(const std::uint8_t* p, std::uint32_t size) {
    std::uint64_t a = load8(p) | kFold, b = load8(p + 8) | kFold;
    if (size <= 8) {
        a = low_bytes(a, size);
        b = 0;
    } else {
        b = low_bytes(b, size - 8);
    }
    return mix128(a, b);
}

inline std::uint64_t hash_long(const std::uint8_t* p, std::uint32_t size) {
    std::uint64_t h = hash16(p, 16);
    std::uint8_t last[16];
    for (p += 16, size -= 16;; p += 16, size -= 16) {
        if (size <= 16) {
            std::memset(last, 0, 16);
            std::memcpy(last, p, size);
            return mix128(h, hash16(last, size));
        }
        h = mix128(h, hash16(p, 16));
    }
}

inline std::uint64_t hash_word(const std::uint8_t* p, std::uint32_t size, bool readable16) {
    if (size > 16) return hash_long(p, size);
    if (readable16) return hash16(p, size);
    std::uint8_t copy[16] = {};
    std::memcpy(copy, p, size);
    return hash16(copy, size);
}

inline void hash_words_impl(const std::uint8_t* text, std::size_t size, const WordSpans& words, std::size_t first,
                            std::size_t count, std::uint64_t* hashes) {
    const std::uint32_t* start = words.start + first;
    const std::uint32_t* stop = words.stop + first;
    std::size_t safe = count;
    while (safe > 0 && static_cast<std::size_t>(start[safe - 1]) + 16 > size) --safe;
    for (std::size_t i = 0; i < safe; ++i) {
        std::uint32_t length = stop[i] - start[i];  // non-ASCII words come out as huge lengths
        if (length <= 16) [[likely]] {
            hashes[i] = hash16(text + start[i], length);
        } else {
            hashes[i] = length & kNonAscii ? 0 : hash_long(text + start[i], length);
        }
    }
    for (std::size_t i = safe; i < count; ++i) {
        std::uint32_t length = stop[i] - start[i];
        hashes[i] = length & kNonAscii ? 0 : hash_word(text + start[i], length, false);
    }
}

inline std::uint64_t power(unsigned exponent) {
    std::uint64_t r = 1;
    while (exponent--) r *= kGramBase;
    return r;
}

inline std::uint64_t finalise(std::uint64_t g) {
    g = (g ^ (g >> 32)) * 0xD6E8FEB86659FD93ull;
    return g ^ (g >> 32);
}

// The hash of an n-gram is the polynomial sum h[k] * B^(n-1-k). It is put together from spans of doubling length, so
// that every pass is one multiply-add over an array and vectorises; n = 13 takes five passes, n = 5 three.
inline void gram_keys_impl(const std::uint64_t* h, std::size_t grams, unsigned n, std::uint64_t* keys,
                           std::uint64_t* scratch) {
    const std::size_t words = grams + n - 1;
    if (n == 1) {
        for (std::size_t i = 0; i < grams; ++i) keys[i] = finalise(h[i]);
        return;
    }
    std::uint64_t* doubled = scratch;             // hash of the span of `span` words at i
    std::uint64_t* so_far = scratch + words + 8;  // hash of the first `have` words at i
    const std::uint64_t* current = h;
    unsigned span = 1, have = 0;
    bool any = false;
    for (unsigned bits = n;; bits >>= 1) {
        if (bits & 1) {
            if (!any) {
                std::memcpy(so_far, current, (words - span + 1) * sizeof(std::uint64_t));
                any = true;
            } else {
                // so_far covers the words AFTER this span: longer spans come first in the gram.
                const std::uint64_t factor = power(have);
                const std::size_t m = words - have - span + 1;
PHI_FAST_VECTORISE
                for (std::size_t i = 0; i < m; ++i) so_far[i] = current[i] * factor + so_far[i + span];
            }
            have += span;
        }
        if (bits == 1) break;
        const std::uint64_t factor = power(span);
        const std::size_t m = words - 2 * span + 1;
PHI_FAST_VECTORISE
        for (std::size_t i = 0; i < m; ++i) doubled[i] = current[i] * factor + current[i + span];
        current = doubled;
        span *= 2;
    }
    for (std::size_t i = 0; i < grams; ++i) keys[i] = finalise(so_far[i]);
}

inline std::uint64_t filter_block(std::uint64_t key, std::uint64_t blocks) { return ((key >> 32) * blocks) >> 32; }
inline std::uint64_t filter_bits(std::uint64_t key) {
    return (1ull << (key & 63)) | (1ull << ((key >> 6) & 63)) | (1ull << ((key >> 12) & 63));
}

inline void prefetch_blocks(const std::uint64_t* keys, std::size_t count, const Prefilter& filter) {
    for (std::size_t i = 0; i < count; ++i) __builtin_prefetch(filter.blocks + filter_block(keys[i], filter.count));
}

inline std::size_t probe_scalar(const std::uint64_t* keys, std::size_t from, std::size_t to, const Prefilter& filter,
                                std::uint32_t* passed) {
    std::size_t n = 0;
    for (std::size_t i = from; i < to; ++i) {
        const std::uint64_t bits = filter_bits(keys[i]);
        passed[n] = static_cast<std::uint32_t>(i);
        n += (filter.blocks[filter_block(keys[i], filter.count)] & bits) == bits;
    }
    return n;
}

constexpr std::size_t kProbeBatch = 64;  // keys fetched ahead of their probe

template <class Level>
std::size_t probe_impl(const std::uint64_t* keys, std::size_t count, const Prefilter& filter, std::uint32_t* passed) {
    if (!filter.prefetch) return Level::probe(keys, 0, count, filter, passed);
    std::size_t n = 0;
    prefetch_blocks(keys, count < kProbeBatch ? count : kProbeBatch, filter);
    for (std::size_t from = 0; from < count; from += kProbeBatch) {
        const std::size_t to = from + kProbeBatch < count ? from + kProbeBatch : count;
        const std::size_t next = to + kProbeBatch < count ? to + kProbeBatch : count;
        prefetch_blocks(keys + to, next - to, filter);
        n += Level::probe(keys, from, to, filter, passed + n);
    }
    return n;
}

// constexpr, so that no code built for a newer processor runs before it has been asked for.
template <class Level>
constexpr Kernels make_kernels(const char* name) {
    return Kernels{
        name,
        [](const std::uint8_t* t, std::size_t s, WordSpans& o) { return runs<Level, false, true>(t, s, &o); },
        [](const std::uint8_t* t, std::size_t s, WordSpans& o) { return runs<Level, true, true>(t, s, &o); },
        [](const std::uint8_t* t, std::size_t s) { return runs<Level, true, false>(t, s, nullptr); },
        [](const std::uint8_t* t, std::size_t s, const WordSpans& w, std::size_t f, std::size_t c, std::uint64_t* h) {
            hash_words_impl(t, s, w, f, c, h);
        },
        [](const std::uint64_t* h, std::size_t g, unsigned n, std::uint64_t* k, std::uint64_t* s) {
            gram_keys_impl(h, g, n, k, s);
        },
        [](const std::uint64_t* k, std::size_t c, const Prefilter& f, std::uint32_t* p) {
            return probe_impl<Level>(k, c, f, p);
        },
    };
}

}  // namespace
}  // namespace phi_fast
