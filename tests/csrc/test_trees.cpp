// Items' functions in documents, whole, renamed, bare, cut anywhere and mangled: run under the sanitizers.
#include <algorithm>
#include <string>
#include <vector>

#include "check.h"
#include "syntax/index.h"

using namespace phi_fast::syntax;

namespace {

constexpr std::string_view kQuestion = "def close(values, limit):\n    \"\"\"Whether two of the values are closer than the limit.\"\"\"\n";
constexpr std::string_view kSolution = R"py(    for i, a in enumerate(values):
        for j, b in enumerate(values):
            if i != j:
                gap = abs(a - b)
                if gap < limit:
                    return True
    return False
)py";
constexpr std::string_view kRenamed = R"py(
class Checker:
    def any_near(self, xs, eps): pass

def any_near(xs, eps):
    for p, x in enumerate(xs):
        for q, y in enumerate(xs):
            if p != q:
                d = abs(x - y)
                if d < eps:
                    return True
    return False
)py";

std::vector<TreeMatch> scan(const TreeIndex& index, std::string_view document) {
    std::vector<TreeMatch> found;
    TreeScanner(index).scan(document, 5, found);
    return found;
}

TreeIndex made() {
    TreeIndex index;
    CHECK(index.add(9, kQuestion, kSolution) == 40);
    CHECK(index.add(10, "", "return 1") == 0);
    index.finish();
    CHECK(index.trees().size() == 2);
    return index;
}

void renamed_copy() {
    const TreeIndex index = made();
    const auto found = scan(index, kRenamed);
    CHECK(found.size() == 2);
    for (const TreeMatch& m : found) {
        CHECK(m.part == 9 && m.doc == 5 && m.distance == 0 && m.alpha_distance == 0 && m.whole);
        CHECK(kRenamed.substr(m.doc_start, 12) == "def any_near" && m.doc_stop == kRenamed.size() - 1);
        CHECK(m.item_start == 0 && m.item_stop == kSolution.size() - 1);
    }
}

void bare_body() {
    const TreeIndex index = made();
    const std::string document = "import os\n" + std::string(kSolution) + "print(os)\n";
    const auto found = scan(index, document);
    CHECK(found.size() == 1 && found[0].form == Form::body && found[0].alpha_distance == 0);
    CHECK(document.substr(found[0].doc_start, 5) == "for i" && document.substr(found[0].doc_stop, 6) == "\nprint");
}

void cut_anywhere() {
    const TreeIndex index = made();
    const std::string whole(kRenamed);
    std::size_t hits = 0;
    for (std::size_t at = 0; at <= whole.size(); ++at) {
        const std::string head = whole.substr(0, at), tail = whole.substr(at);
        for (const std::string& text : {head, tail, tail + head}) {
            for (const TreeMatch& m : scan(index, text)) {
                ++hits;
                CHECK(m.doc_stop <= text.size() && m.doc_start < m.doc_stop && m.distance <= m.alpha_distance);
            }
        }
    }
    CHECK(hits > whole.size() / 4);
}

}  // namespace

int main() {
    renamed_copy();
    bare_body();
    cut_anywhere();
    return report();
}
