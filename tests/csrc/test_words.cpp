// Words, hashes, n-gram keys and the prefilter: every SIMD level against plain twins, on random texts and at the edges
// of the 64-byte blocks.
#include <cstring>

#include "check.h"
#include "twins.h"

namespace {

using namespace phi_fast;

bool agree(std::string_view text) {
    static twins::Checker checker;
    const std::string wrong = checker.run(text);
    if (!wrong.empty())
        std::printf("%s, on %zu bytes: %.200s\n", wrong.c_str(), text.size(), std::string(text).c_str());
    return wrong.empty();
}

void texts_at_block_edges() {
    const std::string pieces[] = {"a", "Zz_09",        "\\",   "\"", "\\\"", "\\\\",      "\\u0041",           "\n",
                                  "é", "\xE2\x80\x94", "\xFF", "😀",  "K",    "a\xCC\x81", std::string(1, '\0')};
    bool all = true;
    for (const std::string& piece : pieces) {
        for (std::size_t before = 0; before < 132; ++before) {
            for (const char filler : {'x', ' ', '\\'}) {
                const std::string start(before, filler);
                all = all && agree(start + piece) && agree(start + piece + "tail of \"more\" words");
            }
        }
    }
    CHECK(all);
}

void random_texts() {
    const std::string_view alphabets[] = {"ab \\\"", "aB_9 .,\n\\\"nu0", "\\\"",
                                          "\xC3\xA9\xE2\x80\x94 a\xF0\x9F\x98\x80\xCC\x81"};
    Random random;
    bool all = true;
    for (int round = 0; round < 4000 && all; ++round) {
        std::string text;
        const std::size_t size = random.below(300);
        const std::uint32_t kind = random.below(6);
        while (text.size() < size) {
            if (kind < 4) {
                text += alphabets[kind][random.below(static_cast<std::uint32_t>(alphabets[kind].size()))];
            } else if (kind == 4) {
                text += static_cast<char>(random.below(256));
            } else {  // valid UTF-8, mostly letters
                append_utf8(random.below(3) ? random.below(0x250) : random.below(0xD800), text);
            }
        }
        all = agree(text);
    }
    CHECK(all);
}

std::uint64_t hash(std::string_view word) {
    return hash_normal_form(bytes(word), word.size());
}

bool same(std::string_view a, std::string_view b) {
    return same_word(bytes(a), a.size(), bytes(b), b.size());
}

void words_that_differ_have_different_hashes() {
    CHECK(hash("ā") != hash("ġ"));  // differ only in bit 5 of a byte, as a and A do
    CHECK(hash("_") != hash("\x5F\x20"));
    std::set<std::uint64_t> seen;
    std::size_t words = 0;
    for (char32_t c = 0x100; c < 0x3000; ++c) {  // every letter that is its own normal form
        std::string word, normal;
        append_utf8(c, word);
        nfkc_lower(word, normal);
        if (normal != word || !(unicode_flags(c) & kLetter)) continue;
        for (const std::size_t length : {std::size_t{1}, std::size_t{5}, std::size_t{20}}) {
            std::string longer = word;
            while (longer.size() < length) longer += "x";
            seen.insert(hash(longer));
            ++words;
        }
    }
    for (const char c : std::string_view("0123456789_abcdefghijklmnopqrstuvwxyz")) {
        for (std::size_t length = 1; length < 70; ++length) {
            std::string word(length, 'm');
            word.back() = c;
            if (c != 'm' || length > 0) seen.insert(hash(word)), ++words;
        }
    }
    CHECK(words > 5000);
    CHECK(seen.size() >= words - 3);  // a one-letter word and its kind come up more than once
}

void same_word_is_about_the_normal_form() {
    CHECK(same("Hello", "hELLO"));
    CHECK(!same("hello", "hell"));
    CHECK(!same("a_", "a\x7F"));
    CHECK(same("ＡＢ１", "ab1"));
    CHECK(same("e\xCC\x81", "É"));
    CHECK(same("ΟΔΟΣ", "οδοσ"));
    CHECK(!same("οδος", "οδοσ"));
    CHECK(!same("ā", "ġ"));
}

void letters() {
    const auto lettered = [](std::string_view word) { return has_letter(bytes(word), word.size()); };
    CHECK(lettered("x1"));
    CHECK(lettered("Z"));
    CHECK(lettered("é9"));
    CHECK(!lettered("_09"));
    CHECK(!lettered("\xCC\x81"));  // a mark alone
    CHECK(lettered("ⅷ"));          // a number, whose normal form is letters
    CHECK(!lettered("²"));
}

void levels_are_named_and_chosen() {
    const std::string before = kernels().name;
    CHECK(std::string_view(available_levels()[0]) == "scalar");
    for (const char* const* level = available_levels(); *level; ++level) {
        CHECK(use_level(*level));
        CHECK(std::string_view(kernels().name) == *level);
    }
    CHECK(!use_level("mmx"));
    CHECK(use_level(before.c_str()));
}

}  // namespace

int main() {
    texts_at_block_edges();
    random_texts();
    words_that_differ_have_different_hashes();
    same_word_is_about_the_normal_form();
    letters();
    levels_are_named_and_chosen();
    return report();
}
