// The n-gram index: one relocatable buffer that holds the parts' texts, where their words start, a hash table from each
// weighted s-gram (s: the smallest n) to its first place, the next place of the same s-gram, and a prefilter.
//
// All offsets are relative, so the buffer can be saved, memory-mapped and shared between processes as it is. Every
// value read from it is checked against its section before use: a damaged buffer gives wrong matches at worst, and
// verification against the words themselves turns those into none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "text/words.h"

namespace phi_fast {

// Why an s-gram carries no weight.
enum GramFlag : std::uint8_t { kNoLetters = 1, kFewDistinct = 2, kCommon = 4, kNoGram = 0x80 };

inline constexpr std::uint32_t kIndexVersion = 1;
inline constexpr std::size_t kMaxNs = 8;
inline constexpr unsigned kMaxN = 64;
inline constexpr unsigned kFewDistinctWords = 4;

struct IndexHeader {
    char magic[8];  // "PHIFNGRM"
    std::uint32_t version;
    std::uint32_t byte_order;  // 0x01020304 as the writing machine stores it
    std::uint64_t total_bytes;
    std::uint64_t checksum;    // of everything else
    char normaliser[32];       // how words are made; a buffer made otherwise is refused
    std::uint32_t n_count;
    std::uint32_t n[kMaxNs];   // descending
    std::uint32_t padding;
    std::uint64_t parts, words, keys, slots, filter_blocks;
    std::uint64_t meta_offset, meta_bytes;
    std::uint64_t text_offset, text_bytes;
    std::uint64_t part_text_offset;  // uint64[parts + 1]: where each part's text starts in the text section
    std::uint64_t part_word_offset;  // uint64[parts + 1]: number of a part's first word
    std::uint64_t word_start_offset; // uint32[words]: byte of the word in its part's text
    std::uint64_t flags_offset;      // uint8[words]: GramFlag of the s-gram that starts at the word
    std::uint64_t next_offset;       // uint32[words]: next word with the same s-gram, 0: none (always greater)
    std::uint64_t filter_offset;     // uint64[filter_blocks]
    std::uint64_t table_offset;      // uint64[slots]: high half fingerprint, low half word + 1; 0: empty
};

std::string normaliser_name();  // "words-1/unicode-15.1.0"

// A buffer that cannot be an index, with the reason.
struct BadIndex : std::runtime_error {
    using std::runtime_error::runtime_error;
};

class Index {
public:
    // Parts' texts back to back: part i is [offsets[i], offsets[i + 1]). Throws std::invalid_argument on bad n or
    // invalid UTF-8 (naming the part).
    static Index build(std::string_view text, std::span<const std::uint64_t> offsets, std::vector<unsigned> n,
                       std::string_view meta);
    // `data` must be 8-byte aligned and outlive the index. With `verify`, the checksum is checked too.
    static Index view(const std::uint8_t* data, std::size_t size, bool verify);

    std::span<const std::uint8_t> buffer() const { return {data_, size_}; }
    const IndexHeader& header() const { return *reinterpret_cast<const IndexHeader*>(data_); }
    bool writable() const { return owned_ != nullptr; }

    std::size_t parts() const { return header().parts; }
    std::size_t words() const { return header().words; }
    unsigned seed_words() const { return header().n[header().n_count - 1]; }
    std::span<const std::uint32_t> ns() const { return {header().n, header().n_count}; }
    std::string_view meta() const { return {chars(header().meta_offset), header().meta_bytes}; }

    std::uint64_t first_word(std::size_t part) const { return part_word_[part]; }
    std::uint32_t part_words(std::size_t part) const {
        return static_cast<std::uint32_t>(part_word_[part + 1] - part_word_[part]);
    }
    std::string_view part_text(std::size_t part) const {
        return {chars(header().text_offset) + part_text_[part], part_text_[part + 1] - part_text_[part]};
    }
    std::size_t part_of(std::uint32_t word) const;
    // Start of a part's k-th word in its text, and the text's end.
    const std::uint8_t* word_at(std::size_t part, std::uint32_t k) const {
        const auto text = part_text(part);
        const std::uint32_t start = word_start_[part_word_[part] + k];
        return reinterpret_cast<const std::uint8_t*>(text.data()) + (start < text.size() ? start : text.size());
    }
    const std::uint8_t* text_end(std::size_t part) const {
        const auto text = part_text(part);
        return reinterpret_cast<const std::uint8_t*>(text.data() + text.size());
    }
    std::uint8_t flags(std::uint64_t word) const { return flags_[word]; }
    const std::uint8_t* flags_data() const { return flags_; }

    // First word of the s-gram with this key, or words() when the table has none.
    std::uint32_t find(std::uint64_t key) const;
    void prefetch(std::uint64_t key) const;
    // Next word with the same s-gram; words() at the end of the chain.
    std::uint32_t next(std::uint32_t word) const {
        const std::uint32_t n = next_[word];
        return n > word && n < words() ? n : static_cast<std::uint32_t>(words());
    }
    Prefilter prefilter() const;

    // Marks in `covered` (part_words(part) values) the words that at least one weighted s-gram covers; returns how many.
    std::uint32_t weighable(std::size_t part, std::vector<std::uint8_t>& covered) const;

    // Sets s-grams aside as common where common[word] != 0, and drops them from the table. Needs writable().
    void set_common(std::span<const std::uint8_t> common);
    void update_checksum();

private:
    Index() = default;
    void attach(const std::uint8_t* data, std::size_t size);
    void fill_table();
    const char* chars(std::uint64_t offset) const { return reinterpret_cast<const char*>(data_ + offset); }
    template <class T>
    T* mutable_at(std::uint64_t offset) {
        return reinterpret_cast<T*>(const_cast<std::uint8_t*>(data_) + offset);
    }

    std::shared_ptr<std::uint8_t> owned_;  // null when the buffer is someone else's
    const std::uint8_t* data_ = nullptr;
    std::size_t size_ = 0;
    const std::uint64_t* part_text_ = nullptr;
    const std::uint64_t* part_word_ = nullptr;
    const std::uint32_t* word_start_ = nullptr;
    const std::uint8_t* flags_ = nullptr;
    const std::uint32_t* next_ = nullptr;
    const std::uint64_t* filter_ = nullptr;
    const std::uint64_t* table_ = nullptr;
};

}  // namespace phi_fast
