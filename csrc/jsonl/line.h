// One line of JSONL: accepted or refused as Python's json.loads would, and the place of its text and id fields.
//
// The text is not unescaped: its words are found in the escaped string (see text/words.h), and only documents that
// match, or hold \uXXXX, are ever unescaped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "text/words.h"

namespace phi_fast {

struct JsonLine {
    std::size_t size = 0;   // bytes of the line without its '\n'
    bool blank = false;     // nothing but spaces: neither a document nor an error
    std::string error;      // why the line is refused; empty when it is a document

    // Byte offsets in the line. The text without its quotes; the id with them, whatever JSON value it is.
    std::size_t text_start = 0, text_stop = 0;
    std::ptrdiff_t id_start = -1, id_stop = -1;
    bool text_has_unicode_escape = false;
    bool text_non_ascii = false;
    std::size_t text_escapes = 0;
    WordSpans runs;  // of the text, relative to its start, as Kernels::json_runs leaves them
};

class LineReader {
public:
    LineReader(std::string text_key, std::string id_key);

    // Reads the line that starts at `line`; its end is the next '\n' or `block_end`.
    void read(const std::uint8_t* line, const std::uint8_t* block_end, JsonLine& out) const;

private:
    std::string text_key_, id_key_;  // an empty id key: none
};

inline constexpr int kMaxJsonDepth = 512;

// Appends the UTF-8 text of an escaped JSON string (valid by LineReader). False when a lone surrogate stands in it.
bool unescape(const std::uint8_t* text, std::size_t size, std::string& out);

// Place of the raw value of a top-level key in a line, quotes included; false when there is none. The last one wins.
bool find_field(std::string_view line, std::string_view key, std::size_t& start, std::size_t& stop);

// Offset of the first invalid UTF-8 sequence, or SIZE_MAX.
std::size_t invalid_utf8(const std::uint8_t* text, std::size_t size);

}  // namespace phi_fast
