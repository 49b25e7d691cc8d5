// The index and the scan from C++: the same matches at every SIMD level and from many threads (build with the thread
// sanitizer to see races), positions in characters, damaged buffers, and documents that need more than one round.
#include "ngram/scan.h"

#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "check.h"
#include "ngram/index.h"

namespace {

using namespace phi_fast;

Index build(const std::vector<std::string>& parts, std::vector<unsigned> n = {13, 5}) {
    std::string text;
    std::vector<std::uint64_t> offsets{0};
    for (const std::string& part : parts) offsets.push_back((text += part).size());
    return Index::build(text, offsets, std::move(n), "{}");
}

std::string numbered(const std::string& name, int count) {
    std::string text;
    for (int k = 0; k < count; ++k) text += (k ? " " : "") + name + std::to_string(k);
    return text;
}

ScanOutput scan(const Index& index, const std::vector<std::string>& documents, std::uint32_t* counts = nullptr) {
    Scanner scanner(index, counts);
    ScanOutput out;
    for (const std::string& document : documents) {
        const std::vector<char> exact(document.begin(), document.end());  // so that a sanitizer sees an overrun
        scanner.plain(reinterpret_cast<const std::uint8_t*>(exact.data()), exact.size(), out);
    }
    return out;
}

ScanOutput scan_lines(const Index& index, std::string_view lines) {
    Scanner scanner(index, nullptr);
    ScanOutput out;
    const std::vector<char> exact(lines.begin(), lines.end());
    scanner.jsonl(LineReader("text", "id"), reinterpret_cast<const std::uint8_t*>(exact.data()), exact.size(), out);
    return out;
}

using Fields = std::tuple<std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t, std::uint32_t,
                          std::uint32_t, std::uint32_t, std::uint32_t, float, float>;

std::vector<Fields> fields(const ScanOutput& out) {
    std::vector<Fields> all;
    for (const Match& m : out.matches) {
        all.emplace_back(out.docs[m.doc].row, m.part, m.n, m.run, m.words, m.doc_start, m.doc_end, m.item_start,
                         m.item_end, m.coverage, m.score);
    }
    return all;
}

void a_copy_is_found_where_it_stands() {
    const std::string item =
        "Return the gréatest cömmon divisor of two integers, a and b, and nothing else 😀 here";  // 15 words
    const Index index = build({"", item, "too short"});
    for (const char* const* level = available_levels(); *level; ++level) {
        use_level(*level);
        for (const auto& [before, characters] :
             {std::pair<std::string, std::uint32_t>{"", 0}, {"é—", 2}, {"😀 x\n", 4}}) {
            const ScanOutput out = scan(index, {"nothing", before + item + " x"});
            // 84 characters: the item's words without what stands around them.
            CHECK((fields(out) ==
                   std::vector<Fields>{{1, 1, 13, 15, 15, characters, characters + 84, 0, 84, 1.0f, 3.0f},
                                       {1, 1, 5, 15, 15, characters, characters + 84, 0, 84, 1.0f, 11.0f}}));
            CHECK(out.rows == 2 && out.documents == 2);
            const std::string line = "{\"text\": \"nothing\"}\n{\"id\": 7, \"text\": \"" + before + item + " x\"}";
            if (before.find('\n') == std::string::npos) CHECK(fields(scan_lines(index, line)) == fields(out));
        }
    }
}

void escapes_are_one_character_each() {
    const std::string item = numbered("w", 20);
    const Index index = build({item}, {5});
    const auto start = [&](const std::string& before) {
        const ScanOutput out = scan_lines(index, "{\"text\": \"" + before + item + "\"}\n");
        return out.matches.size() == 1 ? static_cast<int>(out.matches[0].doc_start) : -1;
    };
    CHECK(start("") == 0);
    CHECK(start("\\n") == 1);
    CHECK(start("\\\\\\\"\\t") == 3);
    CHECK(start("é\\n") == 2);
    CHECK(start("\\u00e9 ") == 2);
    CHECK(start("\\ud83d\\ude00") == 1);
    CHECK(start("nn\\n") == 3);
}

void rows_and_rejections() {
    const Index index = build({numbered("w", 20)});
    const ScanOutput out =
        scan_lines(index, "\n{\"text\": 1}\n{\"text\": \"" + numbered("w", 20) + "\", \"id\": \"k\"}\r\n \n[");
    CHECK(out.rows == 5);
    CHECK(out.documents == 1);
    CHECK(out.rejected.size() == 2);
    CHECK(out.rejected[0].row == 1 && out.rejected[0].offset == 1 && out.rejected[0].length == 11);
    CHECK(out.rejected[1].row == 4 && out.rejected[1].length == 1);
    CHECK(out.docs.size() == 1 && out.docs[0].row == 2 && out.docs[0].id_end - out.docs[0].id_start == 3);
}

void threads_share_an_index() {
    std::vector<std::string> parts, documents;
    for (int k = 0; k < 20; ++k) parts.push_back(numbered("item" + std::to_string(k) + "_", 30) + " for i in range n");
    for (int k = 0; k < 60; ++k) documents.push_back("for i in range n " + parts[k % 20].substr(0, 40 + k * 3) + " é");
    const Index index = build(parts);
    std::vector<std::uint32_t> counts(index.words()), together(index.words());
    const auto expected = fields(scan(index, documents, counts.data()));
    CHECK(!expected.empty());
    std::atomic<int> same{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] { same += fields(scan(index, documents, together.data())) == expected; });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(same == 4);
    bool four_times = true;
    for (std::size_t k = 0; k < counts.size(); ++k) four_times &= together[k] == 4 * counts[k];
    CHECK(four_times);
}

void nothing_is_left_out_of_a_document_with_millions_of_seeds() {
    const std::string idiom = "def check candidate assert result ";
    std::vector<std::string> parts;
    for (int k = 0; k < 600; ++k) parts.push_back(idiom + numbered("item" + std::to_string(k) + "_", 15));
    const Index index = build(parts);
    std::string document;
    for (std::size_t k = 0; k < kMaxSeeds / 600 + 200; ++k) document += idiom + "x ";
    document += numbered("zzz", 100) + " ";
    const std::string far = " " + numbered("yyy", 100) + " ";
    const ScanOutput out = scan(index, {document + parts[0] + far + parts[299] + far + parts[599]});
    std::vector<std::uint32_t> found;
    for (const Match& m : out.matches)
        if (m.n == 5 && m.coverage == 1.0f) found.push_back(m.part);
    CHECK((found == std::vector<std::uint32_t>{0, 299, 599}));
}

void a_view_of_the_buffer_is_the_index() {
    const std::vector<std::string> parts{numbered("w", 30), "", numbered("é", 40)};
    const Index index = build(parts);
    const auto buffer = index.buffer();
    const auto copy = std::make_unique<std::uint8_t[]>(buffer.size());
    std::memcpy(copy.get(), buffer.data(), buffer.size());
    const Index view = Index::view(copy.get(), buffer.size(), true);
    CHECK(fields(scan(view, parts)) == fields(scan(index, parts)));
    CHECK(!fields(scan(view, parts)).empty());
    CHECK(index.writable() && !view.writable());

    int refused = 0;
    for (std::size_t place = 0; place < sizeof(IndexHeader); ++place) {
        copy[place] ^= 0x10;
        try {
            Index::view(copy.get(), buffer.size(), true);
        } catch (const BadIndex&) {
            ++refused;
        }
        copy[place] ^= 0x10;
    }
    CHECK(refused == static_cast<int>(sizeof(IndexHeader)));
    for (const std::size_t size : {std::size_t{0}, std::size_t{8}, sizeof(IndexHeader), buffer.size() - 1}) {
        bool thrown = false;
        try {
            Index::view(copy.get(), size, false);
        } catch (const BadIndex&) {
            thrown = true;
        }
        CHECK(thrown);
    }
}

void common_grams_are_set_aside() {
    Index index = build({numbered("w", 30)}, {5});
    const std::uint64_t keys = index.header().keys;
    std::vector<std::uint8_t> common(index.words()), covered;
    common[0] = common[7] = 1;
    index.set_common(common);
    CHECK(index.header().keys == keys - 2);
    CHECK(index.weighable(0, covered) == 29);  // only the first word stands in no other 5-gram
    CHECK(scan(index, {numbered("w", 5) + " " + numbered("w", 5)}).matches.empty());
    CHECK(Index::view(index.buffer().data(), index.buffer().size(), true).words() == 30);
}

}  // namespace

int main() {
    const std::string before = kernels().name;
    a_copy_is_found_where_it_stands();
    use_level(before.c_str());
    escapes_are_one_character_each();
    rows_and_rejections();
    threads_share_an_index();
    nothing_is_left_out_of_a_document_with_millions_of_seeds();
    a_view_of_the_buffer_is_the_index();
    common_grams_are_set_aside();
    return report();
}
