// Any item and any document can be compared; matches stand inside both, and their distances agree with their bounds.
#include <cstdlib>
#include <string_view>
#include <vector>

#include "syntax/index.h"

namespace {

void check(bool good) {
    if (!good) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace phi_fast::syntax;
    const std::string_view all(reinterpret_cast<const char*>(data), size);
    const std::size_t first = all.find('\0');
    const std::size_t second = first == std::string_view::npos ? first : all.find('\0', first + 1);
    const std::string_view question = first == std::string_view::npos ? std::string_view() : all.substr(0, first);
    const std::string_view solution = second == std::string_view::npos ? all : all.substr(first + 1, second - first - 1);
    const std::string_view document = second == std::string_view::npos ? all : all.substr(second + 1);
    TreeIndex index;
    const std::uint32_t nodes = index.add(7, question, solution);
    check((nodes == 0) == index.trees().empty() && (nodes == 0 || nodes >= kMinAlphaNodes));
    index.finish();
    TreeScanner scanner(index);
    std::vector<TreeMatch> found, again;
    scanner.scan(document, 3, found);
    for (const TreeMatch& m : found) {
        check(m.part == 7 && m.doc == 3);
        check(m.doc_start < m.doc_stop && m.doc_stop <= document.size());
        check(m.item_start <= m.item_stop && m.item_stop <= solution.size());
        check(m.distance <= m.alpha_distance && m.alpha_distance <= m.longest());
        check(m.tau() >= kFloorTau - 1e-9 && m.nodes >= kMinAlphaNodes && m.item_nodes >= kMinAlphaNodes);
    }
    scanner.scan(document, 3, again);  // nothing of the first is left behind
    check(found.size() == again.size());
    for (std::size_t i = 0; i < found.size(); ++i)
        check(found[i].doc_start == again[i].doc_start && found[i].alpha_distance == again[i].alpha_distance);
    return 0;
}
