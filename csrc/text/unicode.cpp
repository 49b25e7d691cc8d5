#include "text/unicode.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace phi_fast {
namespace {

// Hangul syllables are composed and decomposed by arithmetic (The Unicode Standard, 3.12).
constexpr char32_t kSyllable = 0xAC00, kLead = 0x1100, kVowel = 0x1161, kTail = 0x11A7;
constexpr char32_t kLeads = 19, kVowels = 21, kTails = 28, kSyllables = kLeads * kVowels * kTails;

struct Character {
    char32_t point;
    std::uint8_t combining;  // canonical combining class
};

std::uint8_t combining_class(char32_t point) {
    using namespace unicode_tables;
    return combining_value[two_stage(combining_block, combining_shift, point)];
}

void decompose(char32_t point, std::vector<Character>& out) {
    using namespace unicode_tables;
    if (const char32_t syllable = point - kSyllable; syllable < kSyllables) {
        out.push_back({kLead + syllable / (kVowels * kTails), 0});
        out.push_back({kVowel + syllable % (kVowels * kTails) / kTails, 0});
        if (syllable % kTails != 0) out.push_back({kTail + syllable % kTails, 0});
        return;
    }
    const auto place = decomposition_value[two_stage(decomposition_block, decomposition_shift, point)];
    if (place == 0) {
        out.push_back({point, combining_class(point)});
        return;
    }
    const auto* part = decomposition_pool + place + 1;
    const auto* last = part + decomposition_pool[place];
    for (; part != last; ++part) out.push_back({*part, combining_class(*part)});
}

// The primary composite of two code points, 0 if they have none.
char32_t compose(char32_t first, char32_t second) {
    using namespace unicode_tables;
    if (first - kLead < kLeads && second - kVowel < kVowels) {
        return kSyllable + ((first - kLead) * kVowels + (second - kVowel)) * kTails;
    }
    if (first - kSyllable < kSyllables && (first - kSyllable) % kTails == 0 && second - kTail - 1 < kTails - 1) {
        return first + (second - kTail);
    }
    constexpr std::size_t slots = std::size(pairs) / 3;
    static_assert(slots == 2048, "the shift below keeps 11 bits");
    const std::uint32_t hash = std::uint32_t{first} * 0x9E3779B1u + std::uint32_t{second} * 0x85EBCA77u;
    for (std::size_t slot = hash >> 21; pairs[3 * slot + 2] != 0; slot = (slot + 1) % slots) {
        if (pairs[3 * slot] == first && pairs[3 * slot + 1] == second) return pairs[3 * slot + 2];
    }
    return 0;
}

// Marks after a starter, sorted by class; stable, and not quadratic in the length of a run.
void order_marks(std::vector<Character>& text) {
    for (auto at = text.begin(); at != text.end();) {
        if (at->combining == 0) {
            ++at;
            continue;
        }
        const auto end = std::find_if(at, text.end(), [](const Character& c) { return c.combining == 0; });
        const auto earlier = [](const Character& a, const Character& b) { return a.combining < b.combining; };
        if (!std::is_sorted(at, end, earlier)) std::stable_sort(at, end, earlier);
        at = end;
    }
}

// Canonical composition in place: a character joins the last starter unless one of its class or higher stands between.
void compose_all(std::vector<Character>& text) {
    std::size_t kept = 0;
    std::size_t starter = text.size();  // none yet
    for (const Character c : text) {
        if (starter != text.size()) {
            const bool adjacent = kept == starter + 1;
            const bool blocked = !adjacent && text[kept - 1].combining >= c.combining;
            if (!blocked) {
                if (const char32_t composite = compose(text[starter].point, c.point); composite != 0) {
                    text[starter].point = composite;
                    continue;
                }
            }
        }
        if (c.combining == 0) starter = kept;
        text[kept++] = c;
    }
    text.resize(kept);
}

}  // namespace

const char* unicode_version() { return unicode_tables::version; }

void nfkc_lower(std::string_view word, std::string& out) {
    thread_local std::vector<Character> text;
    text.clear();
    out.clear();
    const auto* p = reinterpret_cast<const std::uint8_t*>(word.data());
    const auto* end = p + word.size();
    while (p != end) {
        const char32_t point = decode_utf8(p, end);
        if (point == kInvalidUtf8) {
            ++p;  // the caller has checked; never loop for ever
            continue;
        }
        decompose(point, text);
    }
    order_marks(text);
    compose_all(text);
    for (const Character c : text) append_lower(c.point, out);
    if (text.capacity() > 1 << 16) std::vector<Character>().swap(text);
}

}  // namespace phi_fast
