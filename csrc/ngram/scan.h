// The scan: documents against an index, to matches. A Scanner holds one thread's scratch memory; the index is shared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "jsonl/line.h"
#include "ngram/index.h"
#include "ngram/match.h"
#include "text/words.h"

namespace phi_fast {

struct DocumentRow {
    std::uint32_t row;
    std::uint32_t padding = 0;
    std::uint64_t offset, length;    // JSONL: the raw line in the block, without its newline
    std::int64_t id_start, id_end;   // JSONL: the raw id value in the block, or -1
};

struct Rejected {
    std::uint64_t row;
    std::int64_t offset, length;  // JSONL: the raw line in the block; else -1
    std::string reason;
};

struct ScanOutput {
    std::uint64_t rows = 0, documents = 0, text_bytes = 0, words = 0;
    std::vector<Match> matches;
    std::vector<DocumentRow> docs;
    std::vector<Rejected> rejected;
};

// Looks at a document's text in another way: is given the text and its place in ScanOutput::docs should it match, and says
// whether it does.
using Onlooker = std::function<bool(std::string_view text, std::uint32_t doc)>;

class Scanner {
public:
    // `counts`, if not null, has one value a word of the index and learns document frequencies (see count_common).
    // `onlooker`, if there is one, sees every document. `every`: documents without a match stand in ScanOutput::docs too.
    Scanner(const Index& index, std::uint32_t* counts, Onlooker onlooker = {}, bool every = false);

    // Whole lines; the last may lack its newline.
    void jsonl(const LineReader& reader, const std::uint8_t* block, std::size_t size, ScanOutput& out);
    // One document; row = out.rows, which is advanced.
    void plain(const std::uint8_t* text, std::size_t size, ScanOutput& out);
    // A row without a document, advancing out.rows.
    void reject(std::string reason, ScanOutput& out);

private:
    struct Hit {
        std::uint32_t word;   // first word of the s-gram in the document
        std::uint32_t place;  // its first place in the index
    };

    void find_hits(const DocumentWords& document);
    std::size_t find_seeds(std::size_t from_part);
    bool find_matches(const DocumentWords& document, ScanOutput& out);
    void scan_document(const DocumentWords& document, std::string_view text, const DocumentRow& row, ScanOutput& out);

    const Index& index_;
    std::uint32_t* counts_;
    Onlooker onlooker_;
    bool every_;
    unsigned s_;
    Prefilter filter_;
    JsonLine line_;
    WordSpans runs_, words_;
    std::string unescaped_;
    std::vector<std::uint64_t> hashes_, keys_, scratch_;
    std::vector<std::uint32_t> passed_;
    std::vector<Hit> hits_;
    std::vector<Seed> seeds_;
    Matcher matcher_;
};

}  // namespace phi_fast
