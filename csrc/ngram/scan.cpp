#include "ngram/scan.h"

#include <algorithm>
#include <utility>

namespace phi_fast {
namespace {

constexpr std::size_t kTile = 1024;          // n-grams looked up together: their hashes stay in the first cache
constexpr std::size_t kLongDocument = 1 << 20;  // words; scratch of longer documents is given back

}  // namespace

Scanner::Scanner(const Index& index, std::uint32_t* counts, Onlooker onlooker, bool every)
    : index_(index), counts_(counts), onlooker_(std::move(onlooker)), every_(every), s_(index.seed_words()), filter_(index.prefilter()) {
    hashes_.resize(kTile + kMaxN + 8);
    keys_.resize(kTile + 8);
    scratch_.resize(2 * (kTile + kMaxN) + 32);
    passed_.resize(kTile + 16);
}

void Scanner::find_hits(const DocumentWords& d) {
    hits_.clear();
    const std::size_t words = d.words->count;
    if (words < s_) return;
    const std::size_t grams = words - s_ + 1;
    const Kernels& k = kernels();
    const auto none = static_cast<std::uint32_t>(index_.words());
    std::size_t carried = 0;  // hashes already at the front, from the tile before
    for (std::size_t at = 0; at < grams; at += kTile) {
        const std::size_t here = std::min(kTile, grams - at);
        hash_all(d.text, d.size, *d.words, d.non_ascii, at + carried, here + s_ - 1 - carried, hashes_.data() + carried);
        k.gram_keys(hashes_.data(), here, s_, keys_.data(), scratch_.data());
        const std::size_t passed = k.probe(keys_.data(), here, filter_, passed_.data());
        if (filter_.prefetch)
            for (std::size_t p = 0; p < passed; ++p) index_.prefetch(keys_[passed_[p]]);
        for (std::size_t p = 0; p < passed; ++p) {
            const std::uint32_t place = index_.find(keys_[passed_[p]]);
            if (place != none) hits_.push_back({static_cast<std::uint32_t>(at) + passed_[p], place});
        }
        carried = s_ - 1;
        std::copy_n(hashes_.data() + here, carried, hashes_.data());
    }
}

// Seeds of the parts from `from_part` on, as many parts as their number allows; returns the first part left for another
// round. A part's matches depend on its own seeds alone.
std::size_t Scanner::find_seeds(std::size_t from_part) {
    std::size_t to_part = index_.parts();
    seeds_.clear();
    for (const Hit& hit : hits_) {
        for (std::uint32_t place = hit.place; place < index_.words(); place = index_.next(place)) {
            const std::size_t part = index_.part_of(place);
            if (part < from_part || part >= to_part) continue;
            const auto j = static_cast<std::uint32_t>(place - index_.first_word(part));
            if (j + s_ <= index_.part_words(part)) seeds_.push_back({static_cast<std::uint32_t>(part), hit.word, j});
        }
        if (seeds_.size() > kMaxSeeds && to_part > from_part + 1) {
            const auto middle = seeds_.begin() + static_cast<std::ptrdiff_t>(seeds_.size() / 2);
            std::nth_element(seeds_.begin(), middle, seeds_.end(), [](const Seed& a, const Seed& b) { return a.part < b.part; });
            to_part = std::max<std::size_t>(middle->part, from_part + 1);
            std::erase_if(seeds_, [to_part](const Seed& seed) { return seed.part >= to_part; });
        }
    }
    return to_part;
}

bool Scanner::find_matches(const DocumentWords& d, ScanOutput& out) {
    find_hits(d);
    if (hits_.empty()) return false;
    const std::size_t before = out.matches.size();
    for (std::size_t part = 0; part < index_.parts();) {
        part = find_seeds(part);
        matcher_.match(index_, d, seeds_, counts_, out.matches);
    }
    if (out.matches.size() == before) return false;
    finish_matches(index_, d, out.matches, before);
    for (std::size_t k = before; k < out.matches.size(); ++k) out.matches[k].doc = static_cast<std::uint32_t>(out.docs.size());
    return true;
}

void Scanner::scan_document(const DocumentWords& d, std::string_view text, const DocumentRow& row, ScanOutput& out) {
    ++out.documents;
    out.words += d.words->count;
    bool matched = find_matches(d, out);
    if (onlooker_) matched |= onlooker_(text, static_cast<std::uint32_t>(out.docs.size()));
    if (matched || every_) out.docs.push_back(row);
}

void Scanner::plain(const std::uint8_t* text, std::size_t size, ScanOutput& out) {
    if (size > kMaxDocumentBytes) return reject("the text is longer than 2 GiB", out);
    DocumentWords d{text, size, &runs_, kernels().plain_runs(text, size, runs_).non_ascii, false};
    if (d.non_ascii) {
        const std::size_t bad = refine(text, runs_, words_);
        if (bad != SIZE_MAX) return reject("invalid UTF-8 at byte " + std::to_string(bad), out);
        d.words = &words_;
    }
    out.text_bytes += size;
    scan_document(d, {reinterpret_cast<const char*>(text), size}, {static_cast<std::uint32_t>(out.rows), 0, 0, 0, -1, -1}, out);
    ++out.rows;
    if (d.words->count > kLongDocument) {
        runs_.release();
        words_.release();
        seeds_ = {};
        hits_ = {};
    }
}

void Scanner::reject(std::string reason, ScanOutput& out) { out.rejected.push_back({out.rows++, -1, -1, std::move(reason)}); }

void Scanner::jsonl(const LineReader& reader, const std::uint8_t* block, std::size_t size, ScanOutput& out) {
    const std::uint8_t* const end = block + size;
    for (const std::uint8_t* line = block; line < end; ++out.rows) {
        reader.read(line, end, line_);
        const std::uint8_t* const next = line + line_.size + (line + line_.size < end);
        const auto offset = static_cast<std::uint64_t>(line - block);
        const std::uint8_t* const here = line;
        line = next;
        if (line_.blank) continue;
        if (line_.error.empty()) {
            const std::uint8_t* text = here + line_.text_start;
            const std::size_t text_size = line_.text_stop - line_.text_start;
            DocumentWords d{text, static_cast<std::size_t>(end - text), &line_.runs, line_.text_non_ascii, true};
            std::size_t bytes = text_size - line_.text_escapes;
            std::string_view plain(reinterpret_cast<const char*>(text), text_size);
            if (line_.text_has_unicode_escape) {
                unescaped_.clear();
                if (!unescape(text, text_size, unescaped_)) {
                    line_.error = "a lone surrogate (half of a \\u pair) stands in the text";
                } else {
                    text = reinterpret_cast<const std::uint8_t*>(unescaped_.data());
                    bytes = unescaped_.size();
                    d = {text, bytes, &runs_, kernels().plain_runs(text, bytes, runs_).non_ascii, false};
                    plain = unescaped_;
                }
            } else if (onlooker_ && line_.text_escapes) {
                unescaped_.clear();
                unescape(text, text_size, unescaped_);
                plain = unescaped_;
            }
            if (line_.error.empty() && d.non_ascii) {
                refine(d.text, *d.words, words_);  // valid: the line has been checked
                d.words = &words_;
            }
            if (line_.error.empty()) {
                out.text_bytes += bytes;
                const auto id = [&](std::ptrdiff_t at) { return at < 0 ? -1 : static_cast<std::int64_t>(offset) + at; };
                const DocumentRow row{static_cast<std::uint32_t>(out.rows), 0, offset, line_.size, id(line_.id_start), id(line_.id_stop)};
                scan_document(d, plain, row, out);
                if (d.words->count > kLongDocument) {
                    line_.runs.release();
                    runs_.release();
                    words_.release();
                    seeds_ = {};
                    hits_ = {};
                    unescaped_ = {};
                }
                continue;
            }
        }
        out.rejected.push_back({out.rows, static_cast<std::int64_t>(offset), static_cast<std::int64_t>(line_.size), line_.error});
    }
}

}  // namespace phi_fast
