// Lines of JSONL: what is accepted, why the rest is refused, and where the fields lie.
#include "jsonl/line.h"

#include <cstring>
#include <string>
#include <vector>

#include "check.h"

namespace {

using namespace phi_fast;
using namespace std::string_literals;

const LineReader& reader() {
    static const LineReader the("text", "id");
    return the;
}

// The line in a block of its own; on the heap and of exactly its size, so that a sanitizer sees an overrun.
struct Read {
    explicit Read(std::string_view line, const LineReader& with = reader()) : bytes(line.begin(), line.end()) {
        const auto* p = reinterpret_cast<const std::uint8_t*>(bytes.data());
        with.read(p, p + bytes.size(), out);
    }
    bool accepted() const { return !out.blank && out.error.empty(); }
    std::string raw() const {
        return {bytes.begin() + static_cast<long>(out.text_start), bytes.begin() + static_cast<long>(out.text_stop)};
    }
    std::string text() const {
        std::string plain;
        const auto* p = reinterpret_cast<const std::uint8_t*>(bytes.data());
        return unescape(p + out.text_start, out.text_stop - out.text_start, plain) ? plain : "(lone surrogate)";
    }
    std::string id() const {
        if (out.id_start < 0) return "(none)";
        return {bytes.begin() + out.id_start, bytes.begin() + out.id_stop};
    }
    std::vector<char> bytes;
    JsonLine out;
};

std::string text(std::string_view line) {
    const Read read(line);
    return read.accepted() ? read.text() : read.out.blank ? "(blank)" : "(refused) " + read.out.error;
}

bool refused(std::string_view line, std::string_view with = "") {
    const Read read(line);
    const bool as_expected =
        !read.out.blank && !read.out.error.empty() && read.out.error.find(with) != std::string::npos;
    if (!as_expected) std::printf("%.100s: %s\n", std::string(line).c_str(), read.out.error.c_str());
    return as_expected;
}

void accepted_lines() {
    CHECK(text(R"({"text": "a b"})") == "a b");
    CHECK(text(R"({"text":""})") == "");
    CHECK(text("\t {\"text\"\t:\r \"x\" } \r") == "x");
    CHECK(text(R"({"a": [1, -0.5e+3, {"b": null}], "text": "x", "z": true})") == "x");
    CHECK(text(R"({"nan": NaN, "i": Infinity, "j": -Infinity, "text": "x"})") == "x");
    CHECK(text(R"({"text": "\"\\\/\b\f\n\r\t"})") == "\"\\/\b\f\n\r\t");
    CHECK(text(R"({"text": "\u00e9\u00E9 \ud83d\ude00 \u0000"})") == "éé 😀 "s + '\0');
    CHECK(text(R"({"te\u0078t": "escaped key"})") == "escaped key");
    CHECK(text(R"({"text": 1, "text": "the last one"})") == "the last one");
    CHECK(text(R"({"text": "\ud800", "text": "the last one"})") == "the last one");
    CHECK(text(R"({"other": "\ud800", "text": "x"})") == "x");
    CHECK(text("{\"text\": \"\x7F é 😀\"}") == "\x7F é 😀");
    CHECK(text(" \t\r") == "(blank)");
    CHECK(text("") == "(blank)");
}

void refused_lines() {
    CHECK(refused("{", "expected"));
    CHECK(refused(R"({"text": "x")", "expected ',' or '}'"));
    CHECK(refused(R"({"text": "x)", "not closed before the line ends"));
    CHECK(refused(R"({"text": "x\)", "not closed before the line ends"));
    CHECK(refused(R"({"text" "x"})", "expected ':'"));
    CHECK(refused(R"({"text": "x",})", "expected a string"));
    CHECK(refused(R"({"text": "x"} {})", "more after the end"));
    CHECK(refused(R"({"text": "\x"})", "escape"));
    CHECK(refused(R"({"text": "\u00g0"})", "escape"));
    CHECK(refused(R"({"text": "\u00"})", "escape"));
    CHECK(refused("{\"text\": \"a\tb\"}", "control character"));
    CHECK(refused("{\"text\": \"a\0b\"}"s, "control character"));
    CHECK(refused("{\"text\": \"a\nb\"}", "not closed before the line ends"));
    CHECK(refused("{\"text\": \"\xFF\"}", "invalid UTF-8 at byte 10"));
    CHECK(refused("{\"\xC3\": 1, \"text\": \"x\"}", "invalid UTF-8"));
    CHECK(refused("{\"text\": \"x\"} \xFF", "invalid UTF-8"));
    CHECK(refused("\xEF\xBB\xBF{\"text\": \"x\"}"));
    for (const char* number : {"01", "1.", ".5", "+1", "-", "1e", "0x1", "-NaN", "1_0", "nan", "tru", "nulll", "'a'"}) {
        CHECK(refused("{\"a\": "s + number + ", \"text\": \"x\"}"));
    }
    CHECK(refused("[]", "not a JSON object"));
    CHECK(refused("\"text\"", "not a JSON object"));
    CHECK(refused("{}", "no field \"text\""));
    CHECK(refused(R"({"texts": "x"})", "no field \"text\""));
    CHECK(refused(R"({"text": null})", "\"text\" is null"));
    CHECK(refused(R"({"text": 1.5})", "\"text\" is a number"));
    CHECK(refused(R"({"text": NaN})", "\"text\" is a number"));
    CHECK(refused(R"({"text": true})", "\"text\" is a boolean"));
    CHECK(refused(R"({"text": ["x"]})", "\"text\" is an array"));
    CHECK(refused(R"({"text": {"text": "x"}})", "\"text\" is an object"));
    CHECK(refused(R"({"text": "x", "text": null})", "\"text\" is null"));
}

void nesting() {
    // With the line's own object, `deep` + 1 levels.
    const auto nested = [](std::size_t deep, std::string inside) {
        return "{\"a\": " + std::string(deep, '[') + inside + std::string(deep, ']') + ", \"text\": \"x\"}";
    };
    for (const std::string inside : {"", "1", "\"s\""}) {
        CHECK(text(nested(511, inside)) == "x");
        CHECK(refused(nested(512, inside), "nested deeper than 512"));
        CHECK(refused(nested(100000, inside), "nested deeper than 512"));
    }
    CHECK(refused(std::string(1000000, '['), "nested deeper than 512"));
}

void ids() {
    CHECK(Read(R"({"id": "a b", "text": "x"})").id() == "\"a b\"");
    CHECK(Read(R"({"text": "x", "id":17})").id() == "17");
    CHECK(Read(R"({"text": "x", "id": {"k": [1, 2]} })").id() == "{\"k\": [1, 2]}");
    CHECK(Read(R"({"text": "x"})").id() == "(none)");
    CHECK(Read(R"({"id": 1, "text": "x", "id": 2})").id() == "2");
    CHECK(Read(R"({"text": "x", "i\u0064": 3})").id() == "3");
    CHECK(Read(R"({"text": "x", "id": 1})", LineReader("text", "")).id() == "(none)");
    CHECK(Read(R"({"text": "x"})", LineReader("text", "text")).id() == "\"x\"");
    CHECK(Read(R"({"text": "x"})", LineReader("", "")).out.error.find("no field") == 0);
}

void only_the_line_itself_is_read() {
    // What stands in the next line must not complete this one.
    CHECK(refused("{\"text\": \"x\"\n}", "the line ends"));
    CHECK(refused("{\"a\": tr\nue, \"text\": \"x\"}"));
    CHECK(refused("{\"text\": \"\\\nn\"}", "not closed"));
    CHECK(refused("{\"text\": \"\\u00\n41\"}"));
    CHECK(Read("  \n{\"text\": \"x\"}").out.size == 2);
    CHECK(Read("{\"text\": \"x\"} \n\n").out.size == 14);
    CHECK(Read("{\"text\": 1\n{\"text\": \"x\"}").out.size == 10);
}

void fields() {
    const auto field = [](std::string_view line, std::string_view key) -> std::string {
        std::size_t start, stop;
        return find_field(line, key, start, stop) ? std::string(line.substr(start, stop - start)) : "(none)";
    };
    CHECK(field(R"({"text": "x", "n": 12})", "n") == "12");
    CHECK(field(R"({"text": "x", "n": 12, "n": [ ]})", "n") == "[ ]");
    CHECK(field(R"({"a": {"n": 1}})", "n") == "(none)");
    CHECK(field(R"({"\u006e": "\"q\""} )", "n") == "\"\\\"q\\\"\"");
    CHECK(field("[1]", "n") == "(none)");
    CHECK(field("{}", "n") == "(none)");
    CHECK(field(R"({"n": 1)", "n") == "(none)");
    CHECK(field("", "n") == "(none)");
}

}  // namespace

int main() {
    for (const char* const* level = available_levels(); *level; ++level) {
        use_level(*level);
        accepted_lines();
        refused_lines();
        nesting();
        ids();
        only_the_line_itself_is_read();
        fields();
    }
    return report();
}
