// Any bytes as an index: a damaged buffer is refused or used, and never crashes what reads it. The input is either a
// whole buffer, or changes to a good one: five bytes each, a place (three, two of them of the header) and a value.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "ngram/index.h"
#include "ngram/scan.h"

namespace {

using namespace phi_fast;

const std::string& texts() {
    static const std::string the = [] {
        std::string s =
            "check if in given list of numbers any two numbers are closer to each other than the given threshold";
        s += "return the gréatest cömmon divisor of two ｉntegers a and b and nothing else than that one number";
        s += "short one";
        return s;
    }();
    return the;
}

Index good() {
    const std::size_t second = texts().find("return"), third = texts().find("short");
    const std::uint64_t offsets[] = {0, second, third, third, texts().size()};
    return Index::build(texts(), offsets, {13, 5}, "{\"suites\": []}");
}

void use(const std::uint8_t* data, std::size_t size, bool verify) {
    try {
        const Index index = Index::view(data, size, verify);
        std::vector<std::uint32_t> counts(index.words());
        Scanner scanner(index, counts.data());
        ScanOutput out;
        const std::string document = texts() + " and " + texts();
        scanner.plain(reinterpret_cast<const std::uint8_t*>(document.data()), document.size(), out);
        const std::string line = "{\"text\": \"" + texts() + "\"}\n";
        const LineReader reader("text", "");
        scanner.jsonl(reader, reinterpret_cast<const std::uint8_t*>(line.data()), line.size(), out);
        std::vector<std::uint8_t> covered;
        for (std::size_t part = 0; part < index.parts(); ++part) {
            index.weighable(part, covered);
            std::string text(index.part_text(part));  // reads it all
        }
        std::string meta(index.meta());
    } catch (const BadIndex&) {
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const Index index = good();
    if (size > 0 && data[0] == 'P') {
        std::unique_ptr<std::uint8_t[]> buffer(new std::uint8_t[size]);  // aligned as new aligns, and no byte longer
        std::memcpy(buffer.get(), data, size);
        use(buffer.get(), size, false);
        return 0;
    }
    const auto whole = index.buffer();
    static std::unique_ptr<std::uint8_t[]> buffer(new std::uint8_t[whole.size()]);
    std::memcpy(buffer.get(), whole.data(), whole.size());
    for (std::size_t at = 0; at + 5 <= size; at += 5) {
        const std::size_t wide = std::size_t{data[at]} << 16 | std::size_t{data[at + 1]} << 8 | data[at + 2];
        const std::size_t place = data[at + 3] & 1 ? wide % whole.size() : wide % sizeof(IndexHeader);
        buffer[place] = data[at + 4];
    }
    use(buffer.get(), whole.size(), false);
    if (size >= 5 && std::memcmp(buffer.get(), whole.data(), whole.size()) != 0) {
        try {
            Index::view(buffer.get(), whole.size(), true);
        } catch (const BadIndex&) {
            return 0;
        }
        std::fprintf(stderr, "a changed byte is not noticed\n");
        std::abort();
    }
    return 0;
}
