// Any bytes as a block of JSONL: no crash, every line ends where its newline is, all SIMD levels agree, and what is
// said of an accepted line is true of its bytes.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "jsonl/line.h"

namespace {

using namespace phi_fast;

[[noreturn]] void wrong(const char* what) {
    std::fprintf(stderr, "%s (%s)\n", what, kernels().name);
    std::abort();
}

struct Said {
    std::size_t size, text_start, text_stop, escapes;
    std::ptrdiff_t id_start, id_stop;
    bool blank, unicode_escape, non_ascii;
    std::string error;
    std::vector<std::uint32_t> runs;
    bool operator==(const Said&) const = default;
};

Said said(const JsonLine& line) {
    Said s{line.size,
           line.text_start,
           line.text_stop,
           line.text_escapes,
           line.id_start,
           line.id_stop,
           line.blank,
           line.text_has_unicode_escape,
           line.text_non_ascii,
           line.error,
           {}};
    if (line.blank || !line.error.empty()) return {line.size, 0, 0, 0, 0, 0, line.blank, false, false, line.error, {}};
    for (std::size_t i = 0; i < line.runs.count; ++i) {
        s.runs.push_back(line.runs.start[i]);
        s.runs.push_back(line.runs.stop[i]);
    }
    return s;
}

void check_accepted(std::string_view line, const JsonLine& read) {
    if (read.text_start == 0 || read.text_stop < read.text_start || read.text_stop >= line.size())
        wrong("text: its place");
    if (line[read.text_start - 1] != '"' || line[read.text_stop] != '"') wrong("text: its quotes");
    const auto* all = reinterpret_cast<const std::uint8_t*>(line.data());
    if (invalid_utf8(all, line.size()) != SIZE_MAX) wrong("an accepted line is no UTF-8");
    std::string text;
    if (unescape(all + read.text_start, read.text_stop - read.text_start, text)) {
        if (invalid_utf8(reinterpret_cast<const std::uint8_t*>(text.data()), text.size()) != SIZE_MAX)
            wrong("unescape: no UTF-8");
        if (!read.text_has_unicode_escape && text.size() + read.text_escapes != read.text_stop - read.text_start)
            wrong("text: the number of its escapes");
    }
    std::size_t start = 0, stop = 0;
    if (!find_field(line, "text", start, stop) || start + 1 != read.text_start || stop != read.text_stop + 1)
        wrong("find_field: another place than read");
    const bool has_id = find_field(line, "id", start, stop);
    if (has_id != (read.id_start >= 0)) wrong("find_field: the id");
    if (has_id && (start != static_cast<std::size_t>(read.id_start) || stop != static_cast<std::size_t>(read.id_stop)))
        wrong("find_field: the place of the id");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const LineReader reader("text", "id");
    const std::vector<std::uint8_t> block(data, data + size);  // exactly this long, so that an overrun is seen
    const std::uint8_t* const end = block.data() + size;
    std::vector<Said> first;
    for (const char* const* level = available_levels(); *level; ++level) {
        use_level(*level);
        std::size_t number = 0;
        JsonLine line;
        for (const std::uint8_t* at = block.data(); at < end; ++number) {
            reader.read(at, end, line);
            const void* newline = std::memchr(at, '\n', static_cast<std::size_t>(end - at));
            const auto expected =
                static_cast<std::size_t>((newline ? static_cast<const std::uint8_t*>(newline) : end) - at);
            if (line.size != expected) wrong("the size of a line");
            const std::string_view text(reinterpret_cast<const char*>(at), line.size);
            if (line.blank != (text.find_first_not_of(" \t\r") == std::string_view::npos)) wrong("blank");
            if (!line.blank && line.error.empty()) check_accepted(text, line);
            std::size_t start, stop;
            find_field(text, "text", start, stop);
            if (level == available_levels()) {
                first.push_back(said(line));
            } else if (number >= first.size() || first[number] != said(line)) {
                wrong("the levels differ");
            }
            at += line.size + 1;
        }
        if (number != first.size()) wrong("the levels differ in the number of lines");
    }
    return 0;
}
