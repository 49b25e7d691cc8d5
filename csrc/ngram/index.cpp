#include "ngram/index.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "text/unicode.h"

namespace phi_fast {
namespace {

constexpr char kMagic[8] = {'P', 'H', 'I', 'F', 'N', 'G', 'R', 'M'};
constexpr std::uint32_t kByteOrder = 0x01020304;
constexpr std::size_t kAlign = 64;
constexpr std::size_t kTextPadding = 64;  // kernels may read 16 bytes from a word's start
constexpr std::size_t kCacheBytes = 1 << 20;

std::size_t aligned(std::size_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

// Anonymous zeroed pages, huge ones where the kernel has them: probing a big table is a TLB miss a key otherwise.
std::shared_ptr<std::uint8_t> allocate(std::size_t size) {
    void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    madvise(p, size, MADV_HUGEPAGE);
#endif
    return {static_cast<std::uint8_t*>(p), [size](std::uint8_t* q) { munmap(q, size); }};
}

std::uint64_t slot_of(std::uint64_t key, std::uint64_t slots) {
    return static_cast<std::uint64_t>((static_cast<unsigned __int128>(key) * slots) >> 64);
}
std::uint32_t fingerprint(std::uint64_t key) { return static_cast<std::uint32_t>(key); }

std::uint64_t checksum(const std::uint8_t* data, std::size_t size) {
    // Four interleaved multiply-xor lanes: memory speed, and any changed byte changes the sum.
    std::uint64_t lane[4] = {1, 2, 3, 4};
    std::size_t i = 0;
    for (; i + 32 <= size; i += 32) {
        for (int k = 0; k < 4; ++k) {
            std::uint64_t v;
            std::memcpy(&v, data + i + 8 * k, 8);
            lane[k] = (lane[k] ^ v) * kGramBase;
            lane[k] ^= lane[k] >> 29;
        }
    }
    std::uint64_t sum = size;
    for (; i < size; ++i) sum = (sum ^ data[i]) * kGramBase;
    for (std::uint64_t l : lane) sum = (sum ^ l ^ (sum >> 31)) * kGramBase;
    return sum;
}

// Of the whole buffer, its own field left out.
std::uint64_t checksum_of(const std::uint8_t* data, std::size_t size) {
    IndexHeader h;
    std::memcpy(&h, data, sizeof h);
    h.checksum = 0;
    const std::uint64_t of_header = checksum(reinterpret_cast<const std::uint8_t*>(&h), sizeof h);
    return of_header * kGramBase ^ checksum(data + sizeof h, size - sizeof h);
}

// Words of one part's text; refined when it is not all ASCII.
struct PartWords {
    WordSpans runs, refined;
    const WordSpans* words = nullptr;
    bool non_ascii = false;

    void read(std::string_view text, std::size_t part) {
        const auto* p = reinterpret_cast<const std::uint8_t*>(text.data());
        if (text.size() > kMaxDocumentBytes)
            throw std::invalid_argument("part " + std::to_string(part) + " is longer than 2 GiB");
        non_ascii = kernels().plain_runs(p, text.size(), runs).non_ascii;
        words = &runs;
        if (non_ascii) {
            const std::size_t bad = refine(p, runs, refined);
            if (bad != SIZE_MAX)
                throw std::invalid_argument("part " + std::to_string(part) + " is not valid UTF-8 at byte " + std::to_string(bad));
            words = &refined;
        }
    }
};

}  // namespace

std::string normaliser_name() { return std::string("words-1/unicode-") + unicode_version(); }

Index Index::build(std::string_view text, std::span<const std::uint64_t> offsets, std::vector<unsigned> n,
                   std::string_view meta) {
    std::sort(n.rbegin(), n.rend());
    n.erase(std::unique(n.begin(), n.end()), n.end());
    if (n.empty() || n.size() > kMaxNs) throw std::invalid_argument("between 1 and 8 values of n are needed");
    if (n.back() < 1 || n.front() > kMaxN) throw std::invalid_argument("n must be between 1 and 64 words");
    if (offsets.empty() || offsets.back() > text.size() || !std::is_sorted(offsets.begin(), offsets.end()))
        throw std::invalid_argument("part offsets do not fit the text");
    const std::size_t parts = offsets.size() - 1;

    PartWords part_words;
    std::uint64_t words = 0, grams = 0;
    const unsigned s = n.back();
    for (std::size_t i = 0; i < parts; ++i) {
        part_words.read(text.substr(offsets[i], offsets[i + 1] - offsets[i]), i);
        words += part_words.words->count;
        if (part_words.words->count >= s) grams += part_words.words->count - s + 1;
    }
    if (words >= std::numeric_limits<std::uint32_t>::max() - 1)
        throw std::invalid_argument("an index holds at most 4,294,967,293 words; these parts have " + std::to_string(words));

    IndexHeader h{};
    std::memcpy(h.magic, kMagic, 8);
    h.version = kIndexVersion;
    h.byte_order = kByteOrder;
    std::strncpy(h.normaliser, normaliser_name().c_str(), sizeof h.normaliser - 1);
    h.n_count = static_cast<std::uint32_t>(n.size());
    std::copy(n.begin(), n.end(), h.n);
    h.parts = parts;
    h.words = words;
    h.slots = grams + grams / 2 + 64;  // at most two thirds full
    // 16 bits a key while the filter stays in the cache, 12 beyond; never under 2^20 bits.
    h.filter_blocks = std::max<std::uint64_t>(1 << 14, grams * (grams < (1u << 22) ? 16 : 12) / 64);
    std::size_t at = aligned(sizeof(IndexHeader));
    const auto place = [&at](std::size_t bytes) {
        const std::size_t here = at;
        at = aligned(at + bytes);
        return here;
    };
    h.meta_bytes = meta.size();
    h.meta_offset = place(meta.size());
    h.text_bytes = offsets[parts] - offsets[0];
    h.text_offset = place(h.text_bytes + kTextPadding);
    h.part_text_offset = place((parts + 1) * 8);
    h.part_word_offset = place((parts + 1) * 8);
    h.word_start_offset = place(words * 4);
    h.flags_offset = place(words);
    h.next_offset = place(words * 4);
    h.filter_offset = place(h.filter_blocks * 8);
    h.table_offset = place(h.slots * 8);
    h.total_bytes = at;

    Index index;
    index.owned_ = allocate(at);
    std::uint8_t* data = index.owned_.get();
    std::memcpy(data, &h, sizeof h);
    std::memcpy(data + h.meta_offset, meta.data(), meta.size());
    std::memcpy(data + h.text_offset, text.data() + offsets[0], h.text_bytes);
    auto* part_text = reinterpret_cast<std::uint64_t*>(data + h.part_text_offset);
    auto* part_word = reinterpret_cast<std::uint64_t*>(data + h.part_word_offset);
    auto* word_start = reinterpret_cast<std::uint32_t*>(data + h.word_start_offset);
    std::uint8_t* flags = data + h.flags_offset;

    std::vector<std::uint64_t> hashes;
    std::vector<std::uint8_t> lettered;
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < parts; ++i) {
        const std::string_view t = text.substr(offsets[i], offsets[i + 1] - offsets[i]);
        const auto* p = reinterpret_cast<const std::uint8_t*>(t.data());
        part_words.read(t, i);
        const WordSpans& w = *part_words.words;
        part_text[i] = offsets[i] - offsets[0];
        part_word[i] = word;
        hashes.resize(w.count);
        lettered.resize(w.count);
        hash_all(p, t.size(), w, part_words.non_ascii, 0, w.count, hashes.data());
        for (std::size_t k = 0; k < w.count; ++k) {
            word_start[word + k] = w.start[k];
            lettered[k] = has_letter(p + w.start[k], w.length(k));
        }
        for (std::size_t k = 0; k < w.count; ++k) {
            if (k + s > w.count) {
                flags[word + k] = kNoGram;
                continue;
            }
            bool letters = false;
            unsigned distinct = 0;
            for (unsigned a = 0; a < s; ++a) {
                letters |= lettered[k + a] != 0;
                bool seen = false;
                for (unsigned b = 0; b < a && !seen; ++b) seen = hashes[k + a] == hashes[k + b];
                if (distinct < kFewDistinctWords) distinct += !seen;
            }
            flags[word + k] = static_cast<std::uint8_t>((letters ? 0 : kNoLetters) |
                                                        (distinct < std::min(kFewDistinctWords, s) ? kFewDistinct : 0));
        }
        word += w.count;
    }
    part_text[parts] = h.text_bytes;
    part_word[parts] = word;
    index.attach(data, at);
    index.fill_table();
    index.update_checksum();
    return index;
}

// From the last word to the first, so that every chain ascends and ends in the table at its first place.
void Index::fill_table() {
    const IndexHeader& h = header();
    auto* next = mutable_at<std::uint32_t>(h.next_offset);
    auto* filter = mutable_at<std::uint64_t>(h.filter_offset);
    auto* table = mutable_at<std::uint64_t>(h.table_offset);
    std::memset(next, 0, h.words * 4);
    std::memset(filter, 0, h.filter_blocks * 8);
    std::memset(table, 0, h.slots * 8);
    const unsigned s = seed_words();
    PartWords part_words;
    std::vector<std::uint64_t> hashes, keys, scratch;
    std::uint64_t distinct = 0;
    for (std::size_t part = h.parts; part-- > 0;) {
        const std::string_view t = part_text(part);
        part_words.read(t, part);
        const WordSpans& w = *part_words.words;
        if (w.count < s) continue;
        const std::size_t grams = w.count - s + 1;
        hashes.resize(w.count);
        keys.resize(grams + 8);
        scratch.resize(2 * (grams + s) + 16);
        hash_all(reinterpret_cast<const std::uint8_t*>(t.data()), t.size(), w, part_words.non_ascii, 0, w.count, hashes.data());
        kernels().gram_keys(hashes.data(), grams, s, keys.data(), scratch.data());
        constexpr std::size_t kAhead = 16;
        for (std::size_t k = grams; k-- > 0;) {
            if (k >= kAhead) {
                __builtin_prefetch(table + slot_of(keys[k - kAhead], h.slots), 1);
                __builtin_prefetch(filter + (((keys[k - kAhead] >> 32) * h.filter_blocks) >> 32), 1);
            }
            const std::uint64_t word = part_word_[part] + k, key = keys[k];
            if (flags_[word]) continue;
            filter[((key >> 32) * h.filter_blocks) >> 32] |=
                (1ull << (key & 63)) | (1ull << ((key >> 6) & 63)) | (1ull << ((key >> 12) & 63));
            std::uint64_t slot = slot_of(key, h.slots);
            const std::uint64_t entry = static_cast<std::uint64_t>(fingerprint(key)) << 32 | (word + 1);
            while (table[slot] && table[slot] >> 32 != fingerprint(key)) slot = slot + 1 < h.slots ? slot + 1 : 0;
            if (table[slot]) {
                next[word] = static_cast<std::uint32_t>(table[slot]) - 1;
            } else {
                ++distinct;
            }
            table[slot] = entry;
        }
    }
    mutable_at<IndexHeader>(0)->keys = distinct;
}

void Index::set_common(std::span<const std::uint8_t> common) {
    if (!writable()) throw std::logic_error("an index over someone else's buffer cannot be changed");
    if (common.size() != words()) throw std::invalid_argument("one value for every word of the index is needed");
    auto* flags = mutable_at<std::uint8_t>(header().flags_offset);
    for (std::size_t i = 0; i < common.size(); ++i) {
        if (flags[i] == kNoGram) continue;
        flags[i] = static_cast<std::uint8_t>((flags[i] & ~kCommon) | (common[i] ? kCommon : 0));
    }
    fill_table();
    update_checksum();
}

void Index::update_checksum() {
    mutable_at<IndexHeader>(0)->checksum = checksum_of(data_, size_);
}

void Index::attach(const std::uint8_t* data, std::size_t size) {
    data_ = data;
    size_ = size;
    const IndexHeader& h = header();
    part_text_ = reinterpret_cast<const std::uint64_t*>(data + h.part_text_offset);
    part_word_ = reinterpret_cast<const std::uint64_t*>(data + h.part_word_offset);
    word_start_ = reinterpret_cast<const std::uint32_t*>(data + h.word_start_offset);
    flags_ = data + h.flags_offset;
    next_ = reinterpret_cast<const std::uint32_t*>(data + h.next_offset);
    filter_ = reinterpret_cast<const std::uint64_t*>(data + h.filter_offset);
    table_ = reinterpret_cast<const std::uint64_t*>(data + h.table_offset);
}

Index Index::view(const std::uint8_t* data, std::size_t size, bool verify) {
    if (size < sizeof(IndexHeader)) throw BadIndex("too short to be an n-gram index");
    IndexHeader h;
    std::memcpy(&h, data, sizeof h);
    if (std::memcmp(h.magic, kMagic, 8) != 0) throw BadIndex("not an n-gram index (wrong magic number)");
    if (h.byte_order != kByteOrder) throw BadIndex("made on a machine with the other byte order; build it again here");
    if (h.version != kIndexVersion)
        throw BadIndex("format version " + std::to_string(h.version) + ", this is version " + std::to_string(kIndexVersion) +
                       "; build it again");
    h.normaliser[sizeof h.normaliser - 1] = 0;
    if (normaliser_name() != h.normaliser)
        throw BadIndex("made with the word rules \"" + std::string(h.normaliser) + "\", these are \"" + normaliser_name() +
                       "\"; build it again");
    if (h.total_bytes != size)
        throw BadIndex("has " + std::to_string(size) + " bytes, its header says " + std::to_string(h.total_bytes) + " (truncated?)");
    const auto fits = [size](std::uint64_t offset, std::uint64_t count, std::uint64_t width) {
        return offset % 8 == 0 && offset >= sizeof(IndexHeader) && offset <= size && count <= (size - offset) / width;
    };
    bool good = h.n_count >= 1 && h.n_count <= kMaxNs && h.slots > 0 && h.filter_blocks > 0 &&
                h.filter_blocks <= 0xffffffffull && h.words < 0xfffffffeull && h.parts < size;
    for (std::uint32_t i = 0; good && i < h.n_count; ++i)
        good = h.n[i] >= 1 && h.n[i] <= kMaxN && (i == 0 || h.n[i] < h.n[i - 1]);
    good = good && fits(h.meta_offset, h.meta_bytes, 1) && h.text_bytes < size && fits(h.text_offset, h.text_bytes + kTextPadding, 1) &&
           fits(h.part_text_offset, h.parts + 1, 8) && fits(h.part_word_offset, h.parts + 1, 8) &&
           fits(h.word_start_offset, h.words, 4) && fits(h.flags_offset, h.words, 1) && fits(h.next_offset, h.words, 4) &&
           fits(h.filter_offset, h.filter_blocks, 8) && fits(h.table_offset, h.slots, 8);
    if (!good) throw BadIndex("its header is damaged");
    if (verify && checksum_of(data, size) != h.checksum) throw BadIndex("its checksum is wrong: the file is damaged");

    Index index;
    index.attach(data, size);
    bool ascending = index.part_text_[0] == 0 && index.part_word_[0] == 0;
    for (std::size_t i = 0; i < h.parts && ascending; ++i)
        ascending = index.part_text_[i] <= index.part_text_[i + 1] && index.part_word_[i] <= index.part_word_[i + 1] &&
                    index.part_text_[i + 1] - index.part_text_[i] <= kMaxDocumentBytes;
    if (!ascending || index.part_text_[h.parts] != h.text_bytes || index.part_word_[h.parts] != h.words)
        throw BadIndex("its table of parts is damaged");
    return index;
}

std::size_t Index::part_of(std::uint32_t word) const {
    const std::uint64_t* end = part_word_ + parts() + 1;
    return static_cast<std::size_t>(std::upper_bound(part_word_, end, static_cast<std::uint64_t>(word)) - part_word_) - 1;
}

void Index::prefetch(std::uint64_t key) const { __builtin_prefetch(table_ + slot_of(key, header().slots)); }

std::uint32_t Index::find(std::uint64_t key) const {
    const std::uint64_t slots = header().slots;
    std::uint64_t slot = slot_of(key, slots);
    for (std::uint64_t tried = 0; tried < slots; ++tried) {  // bounded, should a damaged table have no empty slot
        const std::uint64_t entry = table_[slot];
        if (!entry) break;
        if (entry >> 32 == fingerprint(key)) {
            const std::uint32_t word = static_cast<std::uint32_t>(entry) - 1;
            if (word < words()) return word;
        }
        slot = slot + 1 < slots ? slot + 1 : 0;
    }
    return static_cast<std::uint32_t>(words());
}

Prefilter Index::prefilter() const {
    return {filter_, header().filter_blocks, header().filter_blocks * 8 > kCacheBytes};
}

std::uint32_t Index::weighable(std::size_t part, std::vector<std::uint8_t>& covered) const {
    const std::uint32_t m = part_words(part), s = seed_words();
    covered.assign(m, 0);
    std::uint32_t until = 0, count = 0;
    for (std::uint32_t k = 0; k < m; ++k) {
        if (k + s <= m && flags_[part_word_[part] + k] == 0) until = k + s;
        covered[k] = k < until;
        count += covered[k];
    }
    return count;
}

}  // namespace phi_fast
