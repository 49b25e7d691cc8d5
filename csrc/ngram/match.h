// From seeds (places where a document and a part share a weighted s-gram) to runs, and from runs to matches.
//
// docs/ngram-matching.md is the definition; tests/oracles/ngram.py is it in plain Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "ngram/index.h"
#include "text/words.h"

namespace phi_fast {

// What is recorded of a match at least: kFloorWords weighable words, and this coverage or a run this long.
inline constexpr std::uint32_t kFloorWords = 8;
inline constexpr double kFloorCoverage = 0.2;
inline constexpr std::uint32_t kFloorRun = 13;
// A part counts as copied, and not as a source of idioms, from this coverage on when document frequencies are learnt.
inline constexpr double kCopiedCoverage = 0.5;
// With more seeds than this, a document is matched against some of the parts at a time.
inline constexpr std::size_t kMaxSeeds = 1 << 22;

struct Match {
    std::uint32_t doc = 0;   // position in ScanOutput::docs
    std::uint32_t part = 0;
    std::uint32_t n = 0;
    std::uint32_t run = 0;
    std::uint32_t words = 0;
    std::uint32_t doc_start = 0, doc_end = 0;    // characters of the original text
    std::uint32_t item_start = 0, item_end = 0;  // characters of the part's text
    float coverage = 0, score = 0;
};

// The words of one document, and how its bytes relate to characters.
struct DocumentWords {
    const std::uint8_t* text = nullptr;
    std::size_t size = 0;  // readable bytes from `text` on
    const WordSpans* words = nullptr;
    bool non_ascii = false;
    bool json = false;  // `text` is still an escaped JSON string
};

struct Seed {
    std::uint32_t part, i, j;  // document word i, word j of the part
};

class Matcher {
public:
    // Appends the document's matches, with spans still in words, part by part. Reorders `seeds`.
    void match(const Index& index, const DocumentWords& document, std::vector<Seed>& seeds, std::uint32_t* counts,
               std::vector<Match>& out);

private:
    struct Run {
        std::uint32_t i, j, length;
    };
    struct Start {
        std::uint32_t covered, run;
    };

    void find_runs(const Index& index, const DocumentWords& document, std::size_t part, const Seed* seeds, std::size_t count);
    void count_common(const Index& index, std::size_t part, std::uint32_t* counts);
    void match_part(const Index& index, std::uint32_t part, std::uint32_t n, std::vector<Match>& out);
    bool tile(std::uint32_t first, std::uint32_t n, std::uint32_t window_start, std::uint32_t window_end, Match& match);

    std::vector<Run> runs_, long_runs_, pieces_;
    std::vector<std::uint8_t> weighable_, part_marked_, doc_marked_, gram_seen_;
    std::vector<std::uint32_t> cover_, held_, cut_, widest_;
    std::vector<Start> starts_;
    std::uint32_t weighable_count_ = 0;
};

// Turns word positions of `matches` [from, end) into character positions, and sorts them.
void finish_matches(const Index& index, const DocumentWords& document, std::vector<Match>& matches, std::size_t from);

}  // namespace phi_fast
