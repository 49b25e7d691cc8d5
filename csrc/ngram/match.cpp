#include "ngram/match.h"

#include <algorithm>
#include <tuple>

namespace phi_fast {
namespace {

std::uint8_t lower_ascii(std::uint8_t c) { return c >= 'A' && c <= 'Z' ? static_cast<std::uint8_t>(c | 0x20) : c; }

bool word_byte(std::uint8_t c) {
    const std::uint8_t l = c | 0x20;
    return (l >= 'a' && l <= 'z') || (c >= '0' && c <= '9') || c == '_' || c >= 0x80;
}

bool equal_words(const DocumentWords& d, std::uint32_t i, const Index& index, std::size_t part, std::uint32_t j) {
    const std::uint8_t* a = d.text + d.words->start[i];
    const std::uint32_t size = d.words->length(i);
    const std::uint8_t* b = index.word_at(part, j);
    const std::uint8_t* const end = index.text_end(part);
    bool plain = !(d.words->stop[i] & kNonAscii);
    for (std::uint32_t k = 0; plain && k < size; ++k) {
        if (b + k == end) return false;
        if (b[k] >= 0x80) {
            plain = false;
        } else if (lower_ascii(a[k]) != lower_ascii(b[k])) {
            // An ASCII difference decides unless a later non-ASCII character composes with what stands before it.
            plain = false;
        }
    }
    if (plain) {
        if (b + size == end || !word_byte(b[size])) return true;
        if (b[size] < 0x80) return false;
    }
    return same_word(a, size, b, static_cast<std::size_t>(word_end(b, end) - b));
}

bool above_floor(std::uint32_t words, std::uint32_t weighable, std::uint32_t run) {
    return words >= kFloorWords && (words >= kFloorCoverage * weighable || run >= kFloorRun);
}

}  // namespace

void Matcher::match(const Index& index, const DocumentWords& document, std::vector<Seed>& seeds, std::uint32_t* counts,
                    std::vector<Match>& out) {
    const auto diagonal = [](const Seed& s) { return static_cast<std::int64_t>(s.i) - s.j; };
    std::sort(seeds.begin(), seeds.end(), [&](const Seed& a, const Seed& b) {
        return std::tuple(a.part, diagonal(a), a.i) < std::tuple(b.part, diagonal(b), b.i);
    });
    for (std::size_t from = 0, to; from < seeds.size(); from = to) {
        for (to = from + 1; to < seeds.size() && seeds[to].part == seeds[from].part; ++to) {
        }
        const std::uint32_t part = seeds[from].part;
        find_runs(index, document, part, seeds.data() + from, to - from);
        std::uint64_t shared = 0;
        for (const Run& r : runs_) shared += r.length;
        if (shared == 0 || (shared < kFloorWords && !counts)) continue;  // most idioms end here
        weighable_count_ = index.weighable(part, weighable_);
        if (counts) count_common(index, part, counts);
        if (shared < kFloorWords || weighable_count_ < kFloorWords) continue;
        for (const std::uint32_t n : index.ns()) match_part(index, part, n, out);
    }
}

void Matcher::find_runs(const Index& index, const DocumentWords& document, std::size_t part, const Seed* seeds,
                        std::size_t count) {
    runs_.clear();
    const std::uint32_t s = index.seed_words(), m = index.part_words(part);
    const auto words = static_cast<std::uint32_t>(document.words->count);
    std::int64_t diagonal = 0;
    bool any = false;
    for (std::size_t k = 0; k < count; ++k) {
        const Seed& seed = seeds[k];
        const std::int64_t here = static_cast<std::int64_t>(seed.i) - seed.j;
        if (any && here == diagonal && seed.i + s <= runs_.back().i + runs_.back().length) continue;
        bool same = true;
        for (std::uint32_t t = 0; t < s && same; ++t) same = equal_words(document, seed.i + t, index, part, seed.j + t);
        if (!same) continue;  // an accident of hashing
        Run run{seed.i, seed.j, s};
        while (run.i > 0 && run.j > 0 && equal_words(document, run.i - 1, index, part, run.j - 1)) {
            --run.i, --run.j, ++run.length;
        }
        while (run.i + run.length < words && run.j + run.length < m &&
               equal_words(document, run.i + run.length, index, part, run.j + run.length)) {
            ++run.length;
        }
        runs_.push_back(run);
        diagonal = here;
        any = true;
    }
    std::sort(runs_.begin(), runs_.end(), [](const Run& a, const Run& b) { return std::tuple(a.i, a.j) < std::tuple(b.i, b.j); });
}

// One more document holds these s-grams without holding the part: that is what an idiom looks like. Copies of the part
// do not count, so that a leak repeated a thousand times does not hide itself.
void Matcher::count_common(const Index& index, std::size_t part, std::uint32_t* counts) {
    const std::uint32_t s = index.seed_words(), m = index.part_words(part);
    part_marked_.assign(m, 0);
    gram_seen_.assign(m, 0);
    for (const Run& r : runs_) {
        for (std::uint32_t t = 0; t < r.length; ++t) part_marked_[r.j + t] = 1;
        for (std::uint32_t t = 0; t + s <= r.length; ++t) gram_seen_[r.j + t] = 1;
    }
    std::uint32_t covered = 0;
    for (std::uint32_t k = 0; k < m; ++k) covered += part_marked_[k] & weighable_[k];
    if (weighable_count_ == 0 || covered >= kCopiedCoverage * weighable_count_) return;
    const std::uint64_t first = index.first_word(part);
    for (std::uint32_t k = 0; k < m; ++k) {
        if (gram_seen_[k] && index.flags(first + k) == 0) __atomic_fetch_add(counts + first + k, 1u, __ATOMIC_RELAXED);
    }
}

void Matcher::match_part(const Index& index, std::uint32_t part, std::uint32_t n, std::vector<Match>& out) {
    long_runs_.clear();
    for (const Run& r : runs_)
        if (r.length >= n) long_runs_.push_back(r);
    if (long_runs_.empty()) return;
    const std::uint32_t m = index.part_words(part);
    const std::uint64_t window = 2 * static_cast<std::uint64_t>(m);
    const std::size_t count = long_runs_.size();

    // For every run: how much of the part do the runs hold that start within a window from it, cut where the window ends?
    // One counter a word, sliding. (A cut run shorter than n holds nothing.)
    cover_.assign(m, 0);
    held_.assign(count, 0);  // words of each run that are counted
    cut_.clear();            // runs of the window that go on beyond it
    widest_.clear();         // the window's runs by falling length: a sliding maximum
    starts_.clear();
    std::uint32_t covered = 0;
    std::size_t last = 0, head = 0;
    for (std::size_t r = 0, next; r < count; r = next) {  // [r, next): runs that start at the same word
        const std::uint32_t from = long_runs_[r].i;
        const std::uint64_t end = from + window;
        for (; last < count && long_runs_[last].i < end; ++last) {
            cut_.push_back(static_cast<std::uint32_t>(last));
            while (widest_.size() > head && long_runs_[widest_.back()].length <= long_runs_[last].length) widest_.pop_back();
            widest_.push_back(static_cast<std::uint32_t>(last));
        }
        std::erase_if(cut_, [&](std::uint32_t k) {
            const Run& run = long_runs_[k];
            const auto inside = static_cast<std::uint32_t>(std::min<std::uint64_t>(run.length, end - run.i));
            if (inside < n) return false;
            for (; held_[k] < inside; ++held_[k]) {
                const std::uint32_t t = run.j + held_[k];
                covered += cover_[t]++ == 0 && weighable_[t];
            }
            return inside == run.length;
        });
        while (widest_[head] < r) ++head;
        const bool promising = above_floor(covered, weighable_count_, long_runs_[widest_[head]].length);
        for (next = r; next < count && long_runs_[next].i == from; ++next)
            if (promising) starts_.push_back({covered, static_cast<std::uint32_t>(next)});
        for (std::size_t k = r; k < next; ++k) {  // whole by now: a run is no longer than the part, half a window
            const Run& run = long_runs_[k];
            for (std::uint32_t t = run.j; t < run.j + run.length; ++t) covered -= --cover_[t] == 0 && weighable_[t];
        }
    }
    // Of equal windows the last: it starts where the copy does, not at an idiom before it.
    std::stable_sort(starts_.begin(), starts_.end(), [this](const Start& a, const Start& b) {
        return std::tuple(b.covered, long_runs_[b.run].i) < std::tuple(a.covered, long_runs_[a.run].i);
    });

    std::map<std::uint32_t, std::uint32_t> consumed;  // document words [first, second) of matches so far
    for (const Start& start : starts_) {
        const std::uint32_t from = long_runs_[start.run].i;
        auto after = consumed.upper_bound(from);
        if (after != consumed.begin() && std::prev(after)->second > from) continue;
        std::uint64_t end = from + window;
        if (after != consumed.end()) end = std::min<std::uint64_t>(end, after->first);
        Match match;
        match.part = part;
        match.n = n;
        std::uint32_t first = start.run;
        while (first > 0 && long_runs_[first - 1].i == from) --first;
        if (!tile(first, n, from, static_cast<std::uint32_t>(std::min<std::uint64_t>(end, 0xffffffffu)), match)) continue;
        consumed.emplace(match.doc_start, match.doc_end);
        if (above_floor(match.words, weighable_count_, match.run)) out.push_back(match);
    }
}

// Greedy string tiling: longest piece first, every word of the document and of the part used at most once.
bool Matcher::tile(std::uint32_t first, std::uint32_t n, std::uint32_t window_start, std::uint32_t window_end, Match& match) {
    pieces_.clear();
    for (std::size_t r = first; r < long_runs_.size() && long_runs_[r].i < window_end; ++r) {
        Run piece = long_runs_[r];
        piece.length = std::min(piece.length, window_end - piece.i);
        if (piece.length >= n) pieces_.push_back(piece);
    }
    if (pieces_.empty()) return false;
    std::stable_sort(pieces_.begin(), pieces_.end(), [](const Run& a, const Run& b) { return a.length > b.length; });
    part_marked_.assign(weighable_.size(), 0);
    gram_seen_.assign(weighable_.size(), 0);
    std::uint32_t furthest = window_start;
    for (const Run& p : pieces_) furthest = std::max(furthest, p.i + p.length);
    doc_marked_.assign(furthest - window_start, 0);
    std::uint32_t doc_first = 0xffffffffu, doc_last = 0, part_first = 0xffffffffu, part_last = 0, score = 0;
    for (const Run& p : pieces_) {
        for (std::uint32_t t = 0; t + n <= p.length; ++t) {
            score += gram_seen_[p.j + t] == 0;
            gram_seen_[p.j + t] = 1;
        }
        for (std::uint32_t t = 0; t < p.length; ++t) {
            std::uint8_t& in_doc = doc_marked_[p.i + t - window_start];
            std::uint8_t& in_part = part_marked_[p.j + t];
            if (in_doc || in_part) continue;
            in_doc = in_part = 1;
            match.words += weighable_[p.j + t];
            doc_first = std::min(doc_first, p.i + t);
            doc_last = std::max(doc_last, p.i + t);
            part_first = std::min(part_first, p.j + t);
            part_last = std::max(part_last, p.j + t);
        }
    }
    match.run = pieces_.front().length;
    match.coverage = static_cast<float>(static_cast<double>(match.words) / weighable_count_);
    match.score = static_cast<float>(score);
    match.doc_start = doc_first;
    match.doc_end = doc_last + 1;
    match.item_start = part_first;
    match.item_end = part_last + 1;
    return true;
}

namespace {

// Walks a text forward once, answering how many characters stand before each of an ascending list of byte offsets.
class CharacterCounter {
public:
    CharacterCounter(const std::uint8_t* text, bool json) : text_(text), json_(json) {}
    std::uint32_t before(std::size_t byte) {
        if (json_) {
            while (at_ < byte) {
                const std::uint8_t c = text_[at_];
                at_ += c == '\\' ? 2 : 1;  // no \uXXXX here: such texts are unescaped before they are scanned
                count_ += (c & 0xC0) != 0x80;
            }
        } else {
            for (; at_ < byte; ++at_) count_ += (text_[at_] & 0xC0) != 0x80;
        }
        return count_;
    }

private:
    const std::uint8_t* text_;
    bool json_;
    std::size_t at_ = 0;
    std::uint32_t count_ = 0;
};

}  // namespace

void finish_matches(const Index& index, const DocumentWords& document, std::vector<Match>& matches, std::size_t from) {
    const WordSpans& w = *document.words;
    // Every end of a span as (byte, where to write it), in one ascending walk of the document.
    std::vector<std::pair<std::uint32_t, std::uint32_t*>> ends;
    for (std::size_t k = from; k < matches.size(); ++k) {
        Match& m = matches[k];
        ends.emplace_back(w.start[m.doc_start], &m.doc_start);
        ends.emplace_back(w.stop[m.doc_end - 1] & ~kNonAscii, &m.doc_end);
    }
    std::sort(ends.begin(), ends.end());
    CharacterCounter in_document(document.text, document.json);
    for (auto& [byte, place] : ends) *place = in_document.before(byte);
    for (std::size_t k = from; k < matches.size(); ++k) {
        Match& m = matches[k];
        const auto* text = reinterpret_cast<const std::uint8_t*>(index.part_text(m.part).data());
        const std::uint8_t* first = index.word_at(m.part, m.item_start);
        const std::uint8_t* last = word_end(index.word_at(m.part, m.item_end - 1), index.text_end(m.part));
        CharacterCounter in_part(text, false);
        m.item_start = in_part.before(static_cast<std::size_t>(first - text));
        m.item_end = in_part.before(static_cast<std::size_t>(last - text));
    }
    std::sort(matches.begin() + static_cast<std::ptrdiff_t>(from), matches.end(), [](const Match& a, const Match& b) {
        return std::tuple(b.n, a.part, a.doc_start, a.doc_end, a.item_start) <
               std::tuple(a.n, b.part, b.doc_start, b.doc_end, b.item_start);
    });
}

}  // namespace phi_fast
