// The Unicode tables against what Python's unicodedata says (digests over every code point and over random sequences),
// normal forms by hand, and strict UTF-8.
#include "text/unicode.h"

#include <string>
#include <string_view>
#include <vector>

#include "check.h"

namespace {

using namespace phi_fast;

namespace expected {
#include "unicode_expected.inc"
}

struct Digest {
    std::uint64_t value = 0xCBF29CE484222325u;
    void add(std::string_view text) {
        for (const char c : text) step(static_cast<std::uint8_t>(c));
        step(0);
    }
    void step(std::uint8_t byte) { value = (value ^ byte) * 0x100000001B3u; }
};

bool is_surrogate(char32_t c) {
    return c >= 0xD800 && c <= 0xDFFF;
}

std::string normal_form(std::string_view word) {
    std::string out = "what was here before";
    nfkc_lower(word, out);
    return out;
}

std::string utf8(std::u32string_view points) {
    std::string out;
    for (const char32_t c : points) append_utf8(c, out);
    return out;
}

void flags_and_single_code_points() {
    Digest flags, singles;
    bool stable_ones_map_one_to_one = true;
    for (char32_t c = 0; c <= 0x10FFFF; ++c) {
        flags.step(unicode_flags(c));
        if (is_surrogate(c)) continue;
        const std::string form = normal_form(utf8({&c, 1}));
        singles.add(form);
        if (!(unicode_flags(c) & kNeedsNormalisation)) {
            std::string lower;
            append_lower(c, lower);
            const char32_t simple = simple_lower(c);
            stable_ones_map_one_to_one &= lower == form && utf8({&simple, 1}) == form;
        }
    }
    flags.step(0);
    CHECK(flags.value == expected::flags_digest);
    CHECK(singles.value == expected::single_digest);
    CHECK(stable_ones_map_one_to_one);
    CHECK(unicode_flags(0x110000) == 0);
    CHECK(unicode_flags(kInvalidUtf8) == 0);
    CHECK(std::string_view(unicode_version()) == "15.1.0");
}

template <class Points>
std::uint64_t digest_of_sequences(const Points& points, std::size_t count) {
    Random random;
    Digest digest;
    const auto size = static_cast<std::uint32_t>(std::size(points));
    for (std::size_t i = 0; i < count; ++i) {
        std::u32string word;
        for (std::uint32_t left = 2 + random.below(4); left > 0; --left) word += points[random.below(size)];
        digest.add(normal_form(utf8(word)));
    }
    return digest.value;
}

void sequences() {
    std::vector<char32_t> unstable;
    for (char32_t c = 0; c <= 0x10FFFF; ++c)
        if (unicode_flags(c) & kNeedsNormalisation) unstable.push_back(c);
    CHECK(digest_of_sequences(unstable, expected::sequences) == expected::unstable_digest);
    CHECK(digest_of_sequences(expected::joining, expected::sequences) == expected::joining_digest);
}

void words_by_hand() {
    CHECK(normal_form("") == "");
    CHECK(normal_form("Hello_World9") == "hello_world9");
    CHECK(normal_form("ÀÉÎ") == "àéî");
    CHECK(normal_form("E\xCC\x81t\xC3\xA9") == "été");                    // composed, or with a combining accent
    CHECK(normal_form("\xEF\xBC\xA1\xEF\xBC\xA2\xEF\xBC\x91") == "ab1");  // full width
    CHECK(normal_form("ﬁne") == "fine");
    CHECK(normal_form("ΟΔΟΣ") == "οδοσ");  // no final sigma
    CHECK(normal_form("İ") == "i\xCC\x87");
    CHECK(normal_form("\u212A") == "k");  // the Kelvin sign
    CHECK(normal_form("x²") == "x2");
    CHECK(normal_form("각") == normal_form(utf8(U"\u1100\u1161\u11A8")));
    CHECK(normal_form(utf8(U"a\u0327\u0301")) == normal_form(utf8(U"a\u0301\u0327")));
    CHECK(normal_form("a\xFF"
                      "B") == "ab");  // bytes that are no UTF-8 are left out
}

void a_long_run_of_marks_is_not_quadratic() {
    std::u32string marks(1, U'a');
    for (int i = 0; i < 300000; ++i) marks += i % 2 ? char32_t{0x0327} : char32_t{0x0301};
    const std::u32string sorted = U"a" + std::u32string(150000, 0x0327) + std::u32string(150000, 0x0301);
    CHECK(normal_form(utf8(marks)) == normal_form(utf8(sorted)));
}

char32_t decoded(std::string_view text, std::size_t& moved) {
    const std::uint8_t* p = bytes(text);
    const char32_t c = decode_utf8(p, bytes(text) + text.size());
    moved = static_cast<std::size_t>(p - bytes(text));
    return c;
}

void every_code_point_is_decoded_as_encoded() {
    bool all = true;
    for (char32_t c = 0; c <= 0x10FFFF; ++c) {
        std::size_t moved;
        const std::string text = utf8({&c, 1});
        const char32_t back = decoded(text + "x", moved);
        all &= is_surrogate(c) ? back == kInvalidUtf8 && moved == 0 : back == c && moved == text.size();
        for (std::size_t cut = 1; cut < text.size(); ++cut) {
            all &= decoded(std::string_view(text).substr(0, cut), moved) == kInvalidUtf8 && moved == 0;
        }
    }
    CHECK(all);
}

void invalid_utf8_is_refused_in_place() {
    using namespace std::string_view_literals;
    for (const auto text :
         {""sv, "\x80"sv, "\xBF"sv, "\xC0\x80"sv, "\xC1\xBF"sv, "\xC2"sv, "\xC2\x41"sv, "\xE0\x9F\xBF"sv, "\xE2\x82"sv,
          "\xE2\x28\xA1"sv, "\xED\xA0\x80"sv, "\xED\xBF\xBF"sv, "\xF0\x8F\xBF\xBF"sv, "\xF0\x9F\x98"sv,
          "\xF4\x90\x80\x80"sv, "\xF5\x80\x80\x80"sv, "\xF8\x88\x80\x80\x80"sv, "\xFE"sv, "\xFF"sv}) {
        std::size_t moved;
        CHECK(decoded(text, moved) == kInvalidUtf8);
        CHECK(moved == 0);
    }
}

}  // namespace

int main() {
    flags_and_single_code_points();
    sequences();
    words_by_hand();
    a_long_run_of_marks_is_not_quadratic();
    every_code_point_is_decoded_as_encoded();
    invalid_utf8_is_refused_in_place();
    return report();
}
