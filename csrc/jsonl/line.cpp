#include "jsonl/line.h"

#include <cstring>

#include "text/unicode.h"

namespace phi_fast {
namespace {

int hex_digit(std::uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// The code unit of \uXXXX with p at the first digit, or -1.
int code_unit(const std::uint8_t* p, const std::uint8_t* end) {
    if (end - p < 4) return -1;
    int v = 0;
    for (int i = 0; i < 4; ++i) {
        const int d = hex_digit(p[i]);
        if (d < 0) return -1;
        v = v * 16 + d;
    }
    return v;
}

// A recursive-descent reader; stops at the first error. Only strings are long, and those go through the kernels.
class Reader {
public:
    Reader(const std::uint8_t* line, const std::uint8_t* end, JsonLine& out) : line_(line), p_(line), end_(end), out_(out) {}

    struct Keys {
        std::string_view text, id;
    };

    bool document(const Keys& keys) {
        space();
        if (p_ == end_ || *p_ == '\n') {
            out_.blank = true;
            return true;
        }
        bool has_text = false;
        if (*p_ != '{') {
            if (!value(0)) return false;
            return finish() && fail("not a JSON object");
        }
        ++p_;
        std::string text_error;
        space();
        if (p_ < end_ && *p_ == '}') {
            ++p_;
        } else {
            while (true) {
                space();
                const std::uint8_t* key = nullptr;
                std::size_t key_size = 0;
                bool escaped = false;
                if (!string(key, key_size, escaped)) return false;
                space();
                if (p_ == end_ || *p_ != ':') return expected("':'");
                ++p_;
                space();
                if (same_key(key, key_size, escaped, keys.text)) {
                    has_text = true;
                    text_error.clear();
                    if (!text_value(keys.text, text_error)) return false;
                    if (!keys.id.empty() && keys.id == keys.text) set_id(out_.text_start - 1, out_.text_stop + 1);
                } else {
                    const std::uint8_t* from = p_;
                    if (!value(1)) return false;
                    if (!keys.id.empty() && same_key(key, key_size, escaped, keys.id)) set_id(at(from), at(p_));
                }
                space();
                if (p_ < end_ && *p_ == ',') {
                    ++p_;
                    continue;
                }
                if (p_ < end_ && *p_ == '}') {
                    ++p_;
                    break;
                }
                return expected("',' or '}'");
            }
        }
        if (!finish()) return false;
        if (!has_text) return fail("no field \"" + std::string(keys.text) + "\"");
        if (!text_error.empty()) return fail(text_error);
        return true;
    }

    // The value of `key` in a line known to be an object, for find_field.
    bool find(std::string_view wanted, std::size_t& start, std::size_t& stop) {
        bool found = false;
        space();
        if (p_ == end_ || *p_ != '{') return false;
        ++p_;
        space();
        if (p_ < end_ && *p_ == '}') return false;
        while (true) {
            space();
            const std::uint8_t* key = nullptr;
            std::size_t key_size = 0;
            bool escaped = false;
            if (!string(key, key_size, escaped)) return false;
            space();
            if (p_ == end_ || *p_ != ':') return false;
            ++p_;
            space();
            const std::uint8_t* from = p_;
            if (!value(1)) return false;
            if (same_key(key, key_size, escaped, wanted)) {
                start = at(from);
                stop = at(p_);
                found = true;
            }
            space();
            if (p_ < end_ && *p_ == ',') {
                ++p_;
                continue;
            }
            return p_ < end_ && *p_ == '}' && found;
        }
    }

private:
    std::size_t at(const std::uint8_t* p) const { return static_cast<std::size_t>(p - line_); }

    void set_id(std::size_t start, std::size_t stop) {
        out_.id_start = static_cast<std::ptrdiff_t>(start);
        out_.id_stop = static_cast<std::ptrdiff_t>(stop);
    }

    bool fail(std::string why) {
        out_.error = std::move(why);
        return false;
    }
    bool malformed(const std::string& why, const std::uint8_t* where) {
        return fail("malformed JSON: " + why + " at byte " + std::to_string(at(where)) + " of the line");
    }
    bool expected(const char* what) {
        if (p_ == end_ || *p_ == '\n') return malformed(std::string("expected ") + what + ", but the line ends", p_);
        return malformed(std::string("expected ") + what, p_);
    }

    void space() {
        while (p_ < end_ && (*p_ == ' ' || *p_ == '\t' || *p_ == '\r')) ++p_;
    }

    bool finish() {
        space();
        if (p_ < end_ && *p_ != '\n') return malformed("more after the end of the object", p_);
        return true;
    }

    bool same_key(const std::uint8_t* key, std::size_t size, bool escaped, std::string_view wanted) const {
        const std::string_view raw(reinterpret_cast<const char*>(key), size);
        if (!escaped) return raw == wanted;
        std::string plain;
        return unescape(key, size, plain) && plain == wanted;
    }

    // What is wrong with a string is the same wherever it stands. `runs` is what a kernel said of it.
    bool string_end(const RunsResult& runs, const std::uint8_t* text) {
        const std::uint8_t* stop = text + runs.length;
        switch (runs.end) {
            case StringEnd::closed: break;
            case StringEnd::control_character:
                if (*stop == '\n') return malformed("a string is not closed before the line ends", text - 1);
                return malformed("a control character stands unescaped in a string", stop);
            case StringEnd::bad_escape:
                if (*stop == '\n') return malformed("a string is not closed before the line ends", text - 1);
                return malformed("an invalid escape", stop - 1);
            case StringEnd::unterminated: return malformed("a string is not closed before the line ends", text - 1);
        }
        if (runs.unicode_escape) {
            for (const std::uint8_t* q = text; q < stop; ++q) {
                if (*q != '\\') continue;
                if (*++q == 'u' && code_unit(q + 1, stop) < 0) return malformed("an invalid \\u escape", q - 1);
            }
        }
        return true;
    }

    bool utf8(const std::uint8_t* text, std::size_t size) {
        const std::size_t bad = invalid_utf8(text, size);
        if (bad == SIZE_MAX) return true;
        return fail("invalid UTF-8 at byte " + std::to_string(at(text) + bad) + " of the line");
    }

    bool string(const std::uint8_t*& text, std::size_t& size, bool& escaped) {
        if (p_ == end_ || *p_ != '"') return expected("a string");
        text = ++p_;
        // Most keys and values are a few plain bytes: look at those before calling a kernel.
        for (int i = 0; i < 24 && p_ < end_; ++i, ++p_) {
            const std::uint8_t c = *p_;
            if (c == '"') {
                size = static_cast<std::size_t>(p_++ - text);
                escaped = false;
                return true;
            }
            if (c < 0x20 || c == '\\' || c >= 0x80) break;
        }
        const RunsResult runs = kernels().json_skip(text, static_cast<std::size_t>(end_ - text));
        if (!string_end(runs, text)) return false;
        if (runs.non_ascii && !utf8(text, runs.length)) return false;
        size = runs.length;
        escaped = runs.escapes > 0;
        p_ = text + size + 1;
        return true;
    }

    bool text_value(std::string_view key, std::string& error) {
        const auto named = [&](const char* what) { error = "\"" + std::string(key) + "\" is " + what + ", expected a string"; };
        if (p_ < end_ && *p_ == '"') {
            const std::uint8_t* text = ++p_;
            const RunsResult runs = kernels().json_runs(text, static_cast<std::size_t>(end_ - text), out_.runs);
            if (!string_end(runs, text)) return false;
            out_.text_start = at(text);
            out_.text_stop = out_.text_start + runs.length;
            out_.text_escapes = runs.escapes;
            out_.text_has_unicode_escape = runs.unicode_escape;
            out_.text_non_ascii = runs.non_ascii;
            if (runs.non_ascii && !utf8(text, runs.length)) return false;
            p_ = text + runs.length + 1;
            if (runs.length > kMaxDocumentBytes) error = "\"" + std::string(key) + "\" is longer than 2 GiB";
            return true;
        }
        const std::uint8_t first = p_ < end_ ? *p_ : 0;
        if (!value(1)) return false;
        switch (first) {
            case 'n': named("null"); break;
            case 't':
            case 'f': named("a boolean"); break;
            case '{': named("an object"); break;
            case '[': named("an array"); break;
            default: named("a number"); break;
        }
        return true;
    }

    bool literal(const char* word) {
        const std::size_t size = std::strlen(word);
        if (static_cast<std::size_t>(end_ - p_) < size || std::memcmp(p_, word, size) != 0) return expected("a value");
        p_ += size;
        return true;
    }

    bool digits() {
        const std::uint8_t* from = p_;
        while (p_ < end_ && *p_ >= '0' && *p_ <= '9') ++p_;
        return p_ > from;
    }

    bool number() {
        const std::uint8_t* from = p_;
        if (*p_ == '-') ++p_;
        if (p_ < end_ && *p_ == 'I') return literal("Infinity");
        if (p_ < end_ && *p_ == '0') {
            ++p_;
        } else if (!digits()) {
            p_ = from;
            return expected("a value");
        }
        const std::uint8_t* whole = p_;
        if (p_ < end_ && *p_ == '.') {
            ++p_;
            if (!digits()) {
                p_ = whole;
                return true;  // "1." : the point is then what stands where a ',' should
            }
            whole = p_;
        }
        if (p_ < end_ && (*p_ | 0x20) == 'e') {
            ++p_;
            if (p_ < end_ && (*p_ == '+' || *p_ == '-')) ++p_;
            if (!digits()) p_ = whole;
        }
        return true;
    }

    // `depth` arrays and objects are open around the value.
    bool value(int depth) {
        if (p_ == end_) return expected("a value");
        if (depth >= kMaxJsonDepth && (*p_ == '{' || *p_ == '['))
            return fail("JSON nested deeper than " + std::to_string(kMaxJsonDepth) + " levels");
        switch (*p_) {
            case '"': {
                const std::uint8_t* text = nullptr;
                std::size_t size = 0;
                bool escaped = false;
                return string(text, size, escaped);
            }
            case '{': {
                ++p_;
                space();
                if (p_ < end_ && *p_ == '}') return ++p_, true;
                while (true) {
                    const std::uint8_t* key = nullptr;
                    std::size_t size = 0;
                    bool escaped = false;
                    space();
                    if (!string(key, size, escaped)) return false;
                    space();
                    if (p_ == end_ || *p_ != ':') return expected("':'");
                    ++p_;
                    space();
                    if (!value(depth + 1)) return false;
                    space();
                    if (p_ < end_ && *p_ == ',') {
                        ++p_;
                        continue;
                    }
                    if (p_ < end_ && *p_ == '}') return ++p_, true;
                    return expected("',' or '}'");
                }
            }
            case '[': {
                ++p_;
                space();
                if (p_ < end_ && *p_ == ']') return ++p_, true;
                while (true) {
                    space();
                    if (!value(depth + 1)) return false;
                    space();
                    if (p_ < end_ && *p_ == ',') {
                        ++p_;
                        continue;
                    }
                    if (p_ < end_ && *p_ == ']') return ++p_, true;
                    return expected("',' or ']'");
                }
            }
            case 't': return literal("true");
            case 'f': return literal("false");
            case 'n': return literal("null");
            case 'N': return literal("NaN");
            case 'I': return literal("Infinity");
            default: break;
        }
        if (*p_ == '-' || (*p_ >= '0' && *p_ <= '9')) return number();
        return expected("a value");
    }

    const std::uint8_t* line_;
    const std::uint8_t* p_;
    const std::uint8_t* end_;
    JsonLine& out_;

public:
    const std::uint8_t* position() const { return p_; }
};

}  // namespace

LineReader::LineReader(std::string text_key, std::string id_key)
    : text_key_(std::move(text_key)), id_key_(std::move(id_key)) {}

void LineReader::read(const std::uint8_t* line, const std::uint8_t* block_end, JsonLine& out) const {
    out.blank = false;
    out.error.clear();
    out.id_start = out.id_stop = -1;
    out.text_start = out.text_stop = 0;
    out.runs.count = 0;
    Reader reader(line, block_end, out);
    const bool ok = reader.document({text_key_, id_key_});
    const std::uint8_t* end = reader.position();
    if (!ok) {
        // The reader may have stopped anywhere, even past an accepted object: the line ends at the next newline.
        const void* newline = std::memchr(line, '\n', static_cast<std::size_t>(block_end - line));
        end = newline ? static_cast<const std::uint8_t*>(newline) : block_end;
        // An error found beyond the line's own bytes cannot be: strings and space both stop at '\n'.
        const std::size_t bad = invalid_utf8(line, static_cast<std::size_t>(end - line));
        if (bad != SIZE_MAX) out.error = "invalid UTF-8 at byte " + std::to_string(bad) + " of the line";
    }
    out.size = static_cast<std::size_t>(end - line);
}

bool unescape(const std::uint8_t* text, std::size_t size, std::string& out) {
    const std::uint8_t* p = text;
    const std::uint8_t* const end = text + size;
    while (p < end) {
        const void* slash = std::memchr(p, '\\', static_cast<std::size_t>(end - p));
        const std::uint8_t* stop = slash ? static_cast<const std::uint8_t*>(slash) : end;
        out.append(reinterpret_cast<const char*>(p), static_cast<std::size_t>(stop - p));
        p = stop;
        if (p + 1 >= end) break;
        const std::uint8_t kind = p[1];
        p += 2;
        switch (kind) {
            case 'n': out.push_back('\n'); break;
            case 't': out.push_back('\t'); break;
            case 'r': out.push_back('\r'); break;
            case 'b': out.push_back('\b'); break;
            case 'f': out.push_back('\f'); break;
            case 'u': {
                const int unit = code_unit(p, end);
                if (unit < 0) return false;
                p += 4;
                char32_t point = static_cast<char32_t>(unit);
                if (unit >= 0xD800 && unit <= 0xDFFF) {
                    if (unit >= 0xDC00 || end - p < 6 || p[0] != '\\' || p[1] != 'u') return false;
                    const int low = code_unit(p + 2, end);
                    if (low < 0xDC00 || low > 0xDFFF) return false;
                    p += 6;
                    point = 0x10000 + ((point - 0xD800) << 10) + static_cast<char32_t>(low - 0xDC00);
                }
                append_utf8(point, out);
                break;
            }
            default: out.push_back(static_cast<char>(kind)); break;
        }
    }
    return true;
}

bool find_field(std::string_view line, std::string_view key, std::size_t& start, std::size_t& stop) {
    JsonLine unused;
    const auto* p = reinterpret_cast<const std::uint8_t*>(line.data());
    Reader reader(p, p + line.size(), unused);
    return reader.find(key, start, stop);
}

std::size_t invalid_utf8(const std::uint8_t* text, std::size_t size) {
    const std::uint8_t* p = text;
    const std::uint8_t* const end = text + size;
    while (p < end) {
        // Eight ASCII bytes at a time; the rest one sequence at a time.
        while (end - p >= 8) {
            std::uint64_t v;
            std::memcpy(&v, p, 8);
            if (v & 0x8080808080808080ull) break;
            p += 8;
        }
        while (p < end && *p < 0x80) ++p;
        while (p < end && *p >= 0x80) {
            if (decode_utf8(p, end) == kInvalidUtf8) return static_cast<std::size_t>(p - text);
        }
    }
    return SIZE_MAX;
}

}  // namespace phi_fast
