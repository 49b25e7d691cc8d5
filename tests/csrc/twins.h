// Plain twins of the kernels, and what must hold for any bytes at every SIMD level. Used by the tests and by the
// fuzzers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "text/unicode.h"
#include "text/words.h"

namespace twins {

using namespace phi_fast;

struct Span {
    std::uint32_t start, stop;  // stop may carry kNonAscii
    bool operator==(const Span&) const = default;
};

inline std::vector<Span> spans(const WordSpans& words) {
    std::vector<Span> out;
    for (std::size_t i = 0; i < words.count; ++i) out.push_back({words.start[i], words.stop[i]});
    return out;
}

inline bool is_run_byte(std::uint8_t c) {
    return c >= 0x80 || c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

inline std::vector<Span> plain_runs(std::string_view text) {
    std::vector<Span> out;
    bool inside = false;
    for (std::uint32_t i = 0; i < text.size(); ++i) {
        const bool run = is_run_byte(static_cast<std::uint8_t>(text[i]));
        if (run && !inside) out.push_back({i, i});
        if (run) out.back().stop = i + 1;
        inside = run;
    }
    return out;
}

struct JsonRuns {
    StringEnd end = StringEnd::unterminated;
    std::size_t length = 0, escapes = 0;
    bool non_ascii = false, unicode_escape = false;
    std::vector<Span> runs;
};

inline JsonRuns json_runs(std::string_view text) {
    JsonRuns out;
    bool inside = false;
    std::size_t i = 0;
    for (; i < text.size(); ++i) {
        const auto c = static_cast<std::uint8_t>(text[i]);
        if (c == '"' || c < 0x20) {
            out.end = c == '"' ? StringEnd::closed : StringEnd::control_character;
            break;
        }
        const bool run = is_run_byte(c);
        if (run && !inside) out.runs.push_back({static_cast<std::uint32_t>(i), 0});
        if (run) out.runs.back().stop = static_cast<std::uint32_t>(i + 1);
        out.non_ascii |= c >= 0x80;
        inside = run;
        if (c != '\\' || i + 1 == text.size()) continue;
        const auto escaped = static_cast<std::uint8_t>(text[++i]);
        if (std::string_view("\"\\/bfnrtu").find(static_cast<char>(escaped)) == std::string_view::npos) {
            out.end = escaped < 0x20 ? StringEnd::control_character : StringEnd::bad_escape;
            break;
        }
        ++out.escapes;
        out.unicode_escape |= escaped == 'u';
    }
    out.length = i;
    return out;
}

// Words by the Unicode tables, one code point at a time; false when the text is not valid UTF-8, with the place.
inline bool words(std::string_view text, std::vector<Span>& out, std::size_t& invalid) {
    const auto* begin = reinterpret_cast<const std::uint8_t*>(text.data());
    const auto* p = begin;
    const auto* end = begin + text.size();
    bool inside = false;
    while (p < end) {
        const auto at = static_cast<std::uint32_t>(p - begin);
        const char32_t c = decode_utf8(p, end);
        if (c == kInvalidUtf8) return invalid = at, false;
        const bool word = unicode_flags(c) & kWordCharacter;
        if (word && !inside) out.push_back({at, 0});
        if (word) {
            const std::uint32_t flag = (out.back().stop & kNonAscii) | (c >= 0x80 ? kNonAscii : 0);
            out.back().stop = static_cast<std::uint32_t>(p - begin) | flag;
        }
        inside = word;
    }
    return true;
}

// What went wrong, or nothing. Every level runs on memory of exactly the text's size, so that a sanitizer sees an
// overrun.
class Checker {
public:
    std::string run(std::string_view given) {
        const std::vector<char> copy(given.begin(), given.end());
        const std::string_view text(copy.data(), copy.size());
        const std::string before = kernels().name;
        std::string wrong;
        for (const char* const* level = available_levels(); *level && wrong.empty(); ++level) {
            use_level(*level);
            wrong = plain(text);
            if (wrong.empty()) wrong = json(text);
            if (wrong.empty()) wrong = keys(text);
            if (!wrong.empty()) wrong = std::string(*level) + ": " + wrong;
        }
        use_level(before.c_str());
        return wrong;
    }

private:
    static const std::uint8_t* bytes(std::string_view text) {
        return reinterpret_cast<const std::uint8_t*>(text.data());
    }

    std::string plain(std::string_view text) {
        const RunsResult result = kernels().plain_runs(bytes(text), text.size(), runs_);
        const bool high =
            std::any_of(text.begin(), text.end(), [](char c) { return static_cast<std::uint8_t>(c) >= 0x80; });
        if (result.length != text.size() || result.non_ascii != high || result.end != StringEnd::closed)
            return "plain_runs: what it says of the text";
        if (spans(runs_) != plain_runs(text)) return "plain_runs: the runs";

        std::vector<Span> expected;
        std::size_t invalid = SIZE_MAX;
        words(text, expected, invalid);
        const std::size_t refused = refine(bytes(text), runs_, refined_);
        if (refused != invalid) return "refine: the place of invalid UTF-8";
        if (refused != SIZE_MAX) return "";
        if (spans(refined_) != expected) return "refine: the words";
        return hashes(text);
    }

    std::string hashes(std::string_view text) {
        hashes_.assign(refined_.count, 0);
        hash_all(bytes(text), text.size(), refined_, true, 0, refined_.count, hashes_.data());
        std::string normal;
        for (std::size_t i = 0; i < refined_.count; ++i) {
            const auto word = text.substr(refined_.start[i], refined_.length(i));
            nfkc_lower(word, normal);
            if (hashes_[i] != hash_normal_form(bytes(normal), normal.size())) return "hash_all: a hash";
            if (!same_word(bytes(word), word.size(), bytes(normal), normal.size())) return "same_word: its normal form";
            if (word_end(bytes(word), bytes(text) + text.size()) != bytes(word) + word.size()) return "word_end";
        }
        if (refined_.count > 2) {  // a part of the words, as a long document is hashed in pieces
            std::vector<std::uint64_t> some(refined_.count - 2);
            hash_all(bytes(text), text.size(), refined_, true, 1, some.size(), some.data());
            if (!std::equal(some.begin(), some.end(), hashes_.begin() + 1)) return "hash_all: of a part of the words";
        }
        return "";
    }

    std::string json(std::string_view text) {
        const JsonRuns expected = json_runs(text);
        const RunsResult skipped = kernels().json_skip(bytes(text), text.size());
        const RunsResult result = kernels().json_runs(bytes(text), text.size(), runs_);
        for (const RunsResult& r : {skipped, result}) {
            if (r.end != expected.end || r.length != expected.length) return "json: where and why the string ends";
            if (r.end != StringEnd::closed) continue;
            if (r.escapes != expected.escapes || r.non_ascii != expected.non_ascii ||
                r.unicode_escape != expected.unicode_escape)
                return "json: what it says of the string";
        }
        if (result.end == StringEnd::closed && spans(runs_) != expected.runs) return "json_runs: the runs";
        return "";
    }

    // The text's bytes as hashes of words.
    std::string keys(std::string_view text) {
        std::vector<std::uint64_t> hashes(text.size());
        for (std::size_t i = 0; i < text.size(); ++i)
            hashes[i] = (static_cast<std::uint8_t>(text[i]) + 1) * 0xA0761D6478BD642Full;
        for (const unsigned n : {1u, 2u, 3u, 5u, 8u, 13u, 64u}) {
            if (text.size() < n) continue;
            const std::size_t grams = text.size() - n + 1;
            std::vector<std::uint64_t> keys(grams + 8), scratch(2 * (grams + n) + 16), one(9), small(2 * (n + 1) + 16);
            kernels().gram_keys(hashes.data(), grams, n, keys.data(), scratch.data());
            for (std::size_t i = 0; i < grams; i += 7) {
                kernels().gram_keys(hashes.data() + i, 1, n, one.data(), small.data());
                if (one[0] != keys[i]) return "gram_keys: depends on what stands around";
            }
            keys.resize(grams);
            if (std::string wrong = probe(keys); !wrong.empty()) return wrong;
        }
        return "";
    }

    // Every second key is put into the filter: none of those may be missed, and the answer is the plain one.
    std::string probe(const std::vector<std::uint64_t>& keys) {
        std::vector<std::uint64_t> blocks(1 + keys.size() / 4);
        const auto block = [&](std::uint64_t key) -> std::uint64_t& {
            return blocks[((key >> 32) * blocks.size()) >> 32];
        };
        const auto bits = [](std::uint64_t key) {
            return 1ull << (key & 63) | 1ull << ((key >> 6) & 63) | 1ull << ((key >> 12) & 63);
        };
        for (std::size_t i = 0; i < keys.size(); i += 2) block(keys[i]) |= bits(keys[i]);
        std::vector<std::uint32_t> expected;
        for (std::uint32_t i = 0; i < keys.size(); ++i)
            if ((block(keys[i]) & bits(keys[i])) == bits(keys[i])) expected.push_back(i);
        for (const bool prefetch : {false, true}) {
            std::vector<std::uint32_t> passed(keys.size() + 1);
            passed.resize(
                kernels().probe(keys.data(), keys.size(), {blocks.data(), blocks.size(), prefetch}, passed.data()));
            if (passed != expected) return prefetch ? "probe: with prefetch" : "probe";
        }
        return "";
    }

    WordSpans runs_, refined_;
    std::vector<std::uint64_t> hashes_;
};

}  // namespace twins
