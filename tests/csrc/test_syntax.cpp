// The parser on whole, cut and mangled source, and distances: run under the sanitizers.
#include <algorithm>
#include <string>
#include <vector>

#include "check.h"
#include "syntax/neighbours.h"
#include "syntax/sequence.h"
#include "text/words.h"

using namespace phi_fast::syntax;

namespace {

constexpr std::string_view kSource = R"py(
@decorator(1)
async def fetch(self, url: str = "x", *args, key=None, **kw) -> "Reply":
    """A docstring."""
    async with self.open(url) as (reply, *rest):
        return f"{reply!r:>{self.width}} {{}} {key=}" "tail"

class Point(Base, metaclass=Meta):
    x: int = 0
    def norm(self, p=2, /):
        total = sum(abs(v) ** p for v in (self.x, self.y) if v is not None)
        if total > 1 and not self.x: return lambda q: total ** (1 / q)
        elif total: pass
        else:
            try: del self.cache[1:2, ::3]
            except* (KeyError, IndexError) as error: raise Other from error
            finally: x = y = yield
match point:
    case Point(x=0, y=[a, *_]) | {"k": v, **rest} if a: print(v)
    case _: pass
print "old", `x`
)py";

struct Parsed {
    Parser parser;
    Tree tree;
    Sequences sequences;
    void read(std::string_view source) {
        parser.parse(source, tree);
        preorder(tree, sequences);
    }
};

void check_invariants(const Parsed& p, std::size_t size) {
    const Sequences& s = p.sequences;
    bool good = s.sizes.size() == s.types.size() && s.sizes[0] == s.types.size();
    for (std::size_t i = 0; i < s.sizes.size(); ++i) good &= s.sizes[i] >= 1 && i + s.sizes[i] <= s.sizes.size();
    for (const FunctionRange& f : s.functions)
        good &= f.first + f.count <= s.types.size() && f.start < f.stop && f.stop <= size &&
                f.body_first + f.body_count <= f.first + f.count;
    CHECK(good);
}

void whole_source() {
    Parsed p;
    p.read(kSource);
    CHECK(p.tree.errors == 0);
    CHECK(p.sequences.functions.size() == 2);
    CHECK(kSource.substr(p.sequences.functions[0].start, 15) == "async def fetch");
    CHECK(p.sequences.functions[1].whole == 1);
    check_invariants(p, kSource.size());
}

void every_cut() {
    Parsed p;
    for (std::size_t size = 0; size <= kSource.size(); ++size) {
        const std::string cut(kSource.substr(0, size));  // a copy, so that reading past its end is seen
        p.read(cut);
        check_invariants(p, size);
    }
}

void mangled() {
    Parsed p;
    Random random;
    constexpr std::string_view kBytes = "()[]{}:,=\"'#\\\n\t `@*f.x0\xC3\xA9";
    std::vector<std::uint32_t> alpha;
    for (int round = 0; round < 4000; ++round) {
        std::string text(kSource);
        for (std::uint32_t edit = random.below(6) + 1; edit > 0; --edit) {
            const std::uint32_t at = random.below(static_cast<std::uint32_t>(text.size()));
            if (random.below(2)) {
                text.erase(at, random.below(4) + 1);
            } else {
                text.insert(at, 1, kBytes[random.below(kBytes.size())]);
            }
        }
        p.read(text);
        check_invariants(p, text.size());
        for (const FunctionRange& f : p.sequences.functions) {
            AlphaForm().make(text, p.tree, p.sequences, f.first, f.first, f.count, alpha);
            CHECK(alpha.size() == f.count);
        }
    }
}

void deep() {
    Parsed p;
    for (const char* piece : {"(", "[", "{", "not ", "-", "f'{", "lambda: ", "x if y else ", "if x:\n", "await "}) {
        std::string text;
        for (int i = 0; i < 20'000; ++i) text += piece;
        p.read(text);
        check_invariants(p, text.size());
    }
}

void distances() {
    Random random;
    for (int round = 0; round < 300; ++round) {
        std::vector<std::uint32_t> a(random.below(150)), b(random.below(150));
        for (auto* v : {&a, &b})
            for (auto& x : *v) x = random.below(5);
        std::vector<std::uint32_t> row(b.size() + 1);
        for (std::uint32_t j = 0; j <= b.size(); ++j) row[j] = j;
        for (std::uint32_t i = 1; i <= a.size(); ++i) {
            std::uint32_t above = row[0]++;
            for (std::size_t j = 1; j <= b.size(); ++j) {
                const std::uint32_t d = std::min({above + (a[i - 1] != b[j - 1]), row[j] + 1, row[j - 1] + 1});
                above = row[j];
                row[j] = d;
            }
        }
        const auto longest = static_cast<std::uint32_t>(std::max(a.size(), b.size()));
        CHECK(Pattern(a).distance(b, longest) == row.back());
        CHECK(Pattern(b).distance(a, longest) == row.back());
    }
}

void neighbours() {
    const std::string before = phi_fast::kernels().name;
    Random random;
    for (int round = 0; round < 60; ++round) {
        std::vector<std::uint8_t> types;
        std::vector<std::uint64_t> offsets{0};
        std::vector<std::vector<std::uint32_t>> items;
        for (std::uint32_t i = random.below(40); i > 0; --i) {
            auto& item = items.emplace_back(random.below(60));
            for (auto& x : item) x = random.below(round % 2 ? 90 : 4);
            types.insert(types.end(), item.begin(), item.end());
            offsets.push_back(types.size());
        }
        const Neighbours index(types, offsets);
        std::vector<std::uint8_t> query(random.below(60));
        for (auto& x : query) x = static_cast<std::uint8_t>(random.below(round % 2 ? 90 : 4));
        if (!items.empty() && round % 3) query.assign(items.back().begin(), items.back().end());
        const std::vector<std::uint32_t> symbols(query.begin(), query.end());
        const double tau = 0.1 * (1 + random.below(10));
        std::vector<Neighbour> near;
        for (const char* const* level = phi_fast::available_levels(); *level; ++level) {
            phi_fast::use_level(*level);
            index.within(query, tau, near);
            std::size_t found = 0;
            for (std::uint32_t i = 0; i < items.size() && !query.empty(); ++i) {
                const auto longest = static_cast<std::uint32_t>(std::max(query.size(), items[i].size()));
                const std::uint32_t d = Pattern(items[i]).distance(symbols, longest);
                if (1.0 - static_cast<double>(d) / longest < tau - 1e-12) continue;
                CHECK(found < near.size() && near[found].item == i && near[found].distance == d);
                ++found;
            }
            CHECK(found == near.size());
        }
    }
    phi_fast::use_level(before.c_str());
}

}  // namespace

int main() {
    whole_source();
    every_cut();
    mangled();
    deep();
    distances();
    neighbours();
    return report();
}
