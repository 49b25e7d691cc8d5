// Any bytes parse without a crash, into a tree whose parts fit together; distances agree with their bounds.
#include <cstdlib>
#include <string_view>

#include "syntax/neighbours.h"
#include "syntax/sequence.h"

namespace {

void check(bool good) {
    if (!good) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace phi_fast::syntax;
    static Parser parser;
    static Tree tree;
    static Sequences s;
    const std::string_view source(reinterpret_cast<const char*>(data), size);
    parser.parse(source, tree);
    preorder(tree, s);
    check(!s.types.empty() && s.sizes[0] == s.types.size());
    AlphaForm alpha;
    std::vector<std::uint32_t> first, second;
    for (const FunctionRange& f : s.functions) {
        check(f.first + f.count <= s.types.size() && s.sizes[f.first] == f.count);
        check(f.body_first >= f.first && f.body_first + f.body_count <= f.first + f.count);
        check(f.start < f.stop && f.stop <= size);
        second = first;
        alpha.make(source, tree, s, f.first, f.first, f.count, first);
        check(first.size() == f.count);
        if (second.empty() || first.size() > 200 || second.size() > 200) continue;
        const auto longest = static_cast<std::uint32_t>(std::max(first.size(), second.size()));
        const std::uint32_t d = Pattern(first).distance(second, longest);
        check(d <= longest && d == Pattern(second).distance(first, longest));
        check(d == 0 || Pattern(first).distance(second, d - 1) == d);
    }
    return 0;
}
