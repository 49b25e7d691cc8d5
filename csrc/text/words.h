// Words of a UTF-8 text, or of a JSON string still in its escaped form, as byte ranges of the original.
//
// A word is a maximal run of Unicode letters, marks, numbers and '_'. The kernels (one build per SIMD level) find runs of
// ASCII word characters and of bytes >= 0x80; refine() then splits the runs that hold such bytes by the Unicode tables.
// Nothing is copied or lower-cased: hashing folds ASCII case by setting bit 5 of every byte, which maps the word
// characters [A-Za-z0-9_] to [a-z0-9\x7f] one to one apart from case.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace phi_fast {

// Set in WordSpans::stop when a word holds non-ASCII bytes, so that hashing and comparing take the normal form.
inline constexpr std::uint32_t kNonAscii = 0x80000000u;
inline constexpr std::size_t kMaxDocumentBytes = 0x7fffffff;

// Growable parallel arrays; kept by each scanning thread and reused, so that steady state allocates nothing.
struct WordSpans {
    std::uint32_t* start = nullptr;
    std::uint32_t* stop = nullptr;
    std::size_t count = 0;
    std::size_t capacity = 0;

    WordSpans() = default;
    WordSpans(const WordSpans&) = delete;
    WordSpans& operator=(const WordSpans&) = delete;
    ~WordSpans() { release(); }
    // The kernels are compiled for several processors: whatever they call must be inlined or live in words.cpp, or the
    // linker could keep the copy that only the newest processor runs.
    [[gnu::always_inline]] void reserve(std::size_t wanted) {
        if (wanted > capacity) grow(wanted);
    }
    void grow(std::size_t wanted);
    void release();  // after an unusually long document, give the memory back
    std::uint32_t length(std::size_t i) const { return (stop[i] & ~kNonAscii) - start[i]; }
};

enum class StringEnd : std::uint8_t { closed, control_character, bad_escape, unterminated };

struct RunsResult {
    std::size_t length = 0;       // bytes read: up to the closing quote (JSON) or all of them (plain)
    std::size_t escapes = 0;      // JSON: number of backslash escapes
    bool non_ascii = false;       // some byte >= 0x80 was seen
    bool unicode_escape = false;  // JSON: some \uXXXX was seen; its digits are not checked here
    StringEnd end = StringEnd::closed;
};

// Multiplier of the polynomial n-gram hash; odd, so that it has an inverse modulo 2^64.
inline constexpr std::uint64_t kGramBase = 0x9E3779B97F4A7C15ull;

// A blocked Bloom filter: one 64-bit word a key, three bits in it.
struct Prefilter {
    const std::uint64_t* blocks = nullptr;
    std::uint64_t count = 0;
    bool prefetch = false;  // larger than the caches: fetch ahead
};

// What each SIMD level implements. All levels give identical results.
struct Kernels {
    const char* name;
    // Runs of word bytes of a plain text [text, text + size); appends to `out` (cleared first).
    RunsResult (*plain_runs)(const std::uint8_t* text, std::size_t size, WordSpans& out);
    // The same inside a JSON string that begins at `text` (after its opening quote), up to its closing quote.
    // Escapes separate words, so a text with \uXXXX must be unescaped and read again as plain.
    RunsResult (*json_runs)(const std::uint8_t* text, std::size_t size, WordSpans& out);
    // Only finds the end of a JSON string.
    RunsResult (*json_skip)(const std::uint8_t* text, std::size_t size);
    // hashes[i] of words [first, first + count) for words free of non-ASCII bytes; others get 0 and are done by the caller.
    void (*hash_words)(const std::uint8_t* text, std::size_t size, const WordSpans& words, std::size_t first,
                       std::size_t count, std::uint64_t* hashes);
    // Keys of the `grams` n-grams that start at hashes[0..grams), mixed; keys must hold grams + 8 values,
    // scratch 2 * (grams + n) + 16.
    void (*gram_keys)(const std::uint64_t* hashes, std::size_t grams, unsigned n, std::uint64_t* keys,
                      std::uint64_t* scratch);
    // Positions of keys that pass the filter; returns how many.
    std::size_t (*probe)(const std::uint64_t* keys, std::size_t count, const Prefilter& filter, std::uint32_t* passed);
};

const Kernels& kernels();                      // the level in use
const char* const* available_levels();         // null-terminated, slowest first
bool use_level(const char* name);              // false: unknown or not on this machine

// Splits runs with non-ASCII bytes into words by the Unicode tables, in place of `runs` -> `out`. Returns the byte
// offset of the first invalid UTF-8 sequence, or SIZE_MAX when all is valid.
std::size_t refine(const std::uint8_t* text, const WordSpans& runs, WordSpans& out);

// Hash of a word in normal form (UTF-8), equal to what hash_words gives for the same word in ASCII of any case.
std::uint64_t hash_normal_form(const std::uint8_t* word, std::size_t size);

// Hashes of words [first, first + count), non-ASCII ones by their normal form.
void hash_all(const std::uint8_t* text, std::size_t size, const WordSpans& words, bool non_ascii, std::size_t first,
              std::size_t count, std::uint64_t* hashes);

// Same word, whatever its case or Unicode form. Lengths in bytes.
bool same_word(const std::uint8_t* a, std::size_t a_size, const std::uint8_t* b, std::size_t b_size);

// End of the word that starts at `word`, at most `end`.
const std::uint8_t* word_end(const std::uint8_t* word, const std::uint8_t* end);

// Does the word hold a letter (category L*)?
bool has_letter(const std::uint8_t* word, std::size_t size);

}  // namespace phi_fast
