#include "syntax/index.h"

#include <algorithm>
#include <string>
#include <tuple>

namespace phi_fast::syntax {
namespace {

// Memory of a document's scratch that is kept for the next one: what a file of some megabytes needs.
constexpr std::size_t kKeptNodes = 1 << 20;
constexpr std::uint32_t kLineReach = 1000;

bool is_statement(std::uint8_t type) {
    const auto t = static_cast<Type>(type);
    return t >= Type::FunctionDef && t <= Type::Continue;
}

// Nodes whose children are, or hold, statements.
bool is_block(std::uint8_t type) {
    switch (static_cast<Type>(type)) {
        case Type::Module:
        case Type::FunctionDef:
        case Type::AsyncFunctionDef:
        case Type::ClassDef:
        case Type::For:
        case Type::AsyncFor:
        case Type::While:
        case Type::If:
        case Type::With:
        case Type::AsyncWith:
        case Type::Try:
        case Type::TryStar:
        case Type::ExceptHandler:
        case Type::match_case: return true;
        default: return false;
    }
}

std::vector<FunctionRange> outermost(const Sequences& s, std::uint32_t from_byte) {
    std::vector<FunctionRange> found;
    std::uint32_t inside = 0;
    for (const FunctionRange& f : s.functions) {
        if (f.first < inside) continue;
        inside = f.first + f.count;
        if (f.stop > from_byte && f.whole) found.push_back(f);
    }
    return found;
}

}  // namespace

std::uint32_t characters(std::string_view text, std::uint32_t byte) {
    std::uint32_t n = 0;
    for (const char c : text.substr(0, byte)) n += (static_cast<std::uint8_t>(c) & 0xC0) != 0x80;
    return n;
}

std::uint64_t subtree_hash(const std::uint8_t* types, std::uint32_t count) {
    std::uint64_t h = count;
    for (std::uint32_t i = 0; i < count; ++i) {
        h = (h ^ types[i]) * 0x9E3779B97F4A7C15ull;
        h ^= h >> 32;
    }
    return h;
}

void TreeIndex::add_tree(std::uint32_t part, Form form, std::uint32_t start, std::uint32_t stop, std::string_view source,
                         const Tree& tree, const Sequences& s, std::uint32_t scope, std::uint32_t first, std::uint32_t count) {
    if (count < kMinAlphaNodes) return;
    std::vector<std::uint8_t> types(s.types.begin() + first, s.types.begin() + first + count);
    std::vector<std::uint32_t> statements, alpha, bare;
    if (form == Form::body)
        for (std::uint32_t at = 0; at < count; at += s.sizes[first + at]) statements.push_back(at);
    AlphaForm().make(source, tree, s, scope, first, count, alpha);
    AlphaForm().make(source, tree, s, first, first, count, bare);
    const std::vector<std::uint32_t> symbols(types.begin(), types.end());
    trees_.push_back({part, form, start, stop, std::move(types), std::move(statements), Pattern(symbols), Pattern(alpha),
                      Pattern(bare)});
}

std::uint32_t TreeIndex::add(std::uint32_t part, std::string_view question, std::string_view solution) {
    const std::size_t before = trees_.size();
    std::string program(question);
    program += solution;
    Parser parser;
    Tree tree;
    Sequences s;
    auto from = static_cast<std::uint32_t>(question.size());
    const auto read = [&](std::string_view source) {
        parser.parse(source, tree);
        preorder(tree, s);
        return outermost(s, from);
    };
    // A question of code goes before its solution; one of prose does not parse.
    std::vector<FunctionRange> functions = read(program);
    if (tree.errors || functions.empty()) {
        from = 0;
        program = solution;
        functions = read(program);
    }
    if (!functions.empty()) {
        std::uint32_t all = 0, largest = 0;
        for (const FunctionRange& f : functions) {
            all += f.count;
            largest = std::max(largest, f.count);
        }
        for (const FunctionRange& f : functions) {
            if (2 * f.count < all && f.count != largest) continue;
            const std::uint32_t start = characters(solution, std::max(f.start, from) - from), stop = characters(solution, f.stop - from);
            add_tree(part, Form::function, start, stop, program, tree, s, f.first, f.first, f.count);
            add_tree(part, Form::body, start, stop, program, tree, s, f.first, f.body_first, f.body_count);
        }
    } else if (!tree.errors && s.types.size() > 1) {
        const auto all = static_cast<std::uint32_t>(solution.size());
        add_tree(part, Form::body, 0, characters(solution, all), program, tree, s, 1, 1,
                 static_cast<std::uint32_t>(s.types.size() - 1));
    }
    std::uint32_t nodes = 0;
    for (std::size_t i = before; i < trees_.size(); ++i) nodes = std::max(nodes, trees_[i].nodes());
    return nodes;
}

void TreeIndex::finish() {
    for (auto& list : by_form_) list.clear();
    neighbours_.clear();
    places_.clear();
    anchor_sizes_.clear();
    for (std::uint32_t i = 0; i < trees_.size(); ++i) {
        const ItemTree& t = trees_[i];
        by_form_[static_cast<int>(t.form)].push_back(i);
        for (std::uint32_t k = 0; k < t.statements.size(); ++k) {
            const std::uint32_t at = t.statements[k];
            const std::uint32_t size = (k + 1 < t.statements.size() ? t.statements[k + 1] : t.nodes()) - at;
            if (size < kMinAnchorNodes) continue;
            if (size >= anchor_sizes_.size()) anchor_sizes_.resize(size + 1);
            anchor_sizes_[size] = true;
            places_[subtree_hash(t.types.data() + at, size)].push_back({i, k});
        }
    }
    for (const auto& list : by_form_) {
        std::vector<std::uint8_t> types;
        std::vector<std::uint64_t> offsets{0};
        for (const std::uint32_t i : list) {
            types.insert(types.end(), trees_[i].types.begin(), trees_[i].types.end());
            offsets.push_back(types.size());
        }
        neighbours_.emplace_back(types, offsets);
    }
}

void TreeScanner::scan(std::string_view source, std::uint32_t doc, std::vector<TreeMatch>& out) {
    source_ = source;
    doc_ = doc;
    out_ = &out;
    alpha_count_ = 0;
    const std::size_t before = out.size();
    parser_.parse(source, tree_);
    preorder(tree_, sequences_);
    for (const FunctionRange& f : sequences_.functions) {
        compare(Form::function, {f.first, f.first, f.count, f.start, f.stop, f.whole != 0});
        compare(Form::body, {f.first, f.body_first, f.body_count, f.start, f.stop, f.whole != 0});
    }
    bare_bodies();
    const auto begin = out.begin() + static_cast<std::ptrdiff_t>(before);
    const auto place = [](const TreeMatch& m) { return std::tuple(m.part, m.doc_start, m.doc_stop, m.form, m.item_start, m.item_stop); };
    std::sort(begin, out.end(), [&](const TreeMatch& a, const TreeMatch& b) {
        return std::tuple(place(a), -a.alpha(), -a.tau()) < std::tuple(place(b), -b.alpha(), -b.tau());
    });
    out.erase(std::unique(begin, out.end(), [&](const TreeMatch& a, const TreeMatch& b) { return place(a) == place(b); }), out.end());
    if (sequences_.types.size() > kKeptNodes) {
        parser_ = {};
        tree_ = {};
        sequences_ = {};
    }
}

void TreeScanner::compare(Form form, const Place& place) {
    if (place.count < kMinAlphaNodes) return;
    index_.neighbours(form).within({sequences_.types.data() + place.first, place.count}, kFloorTau, near_);
    for (const Neighbour& n : near_) {
        const ItemTree& item = index_.trees()[index_.of_form(form)[n.item]];
        consider(item, item.alpha_pattern, place, n.distance);
    }
}

// The alpha distance is never under that of node types, so a pair that fails by node types fails by alpha forms as well.
void TreeScanner::consider(const ItemTree& item, const Pattern& alpha, const Place& place, std::uint32_t distance) {
    if (alpha_count_ != place.count || alpha_first_ != place.first || alpha_scope_ != place.scope) {
        alpha_form_.make(source_, tree_, sequences_, place.scope, place.first, place.count, alpha_);
        alpha_scope_ = place.scope;
        alpha_first_ = place.first;
        alpha_count_ = place.count;
    }
    const std::uint32_t longest = std::max(item.nodes(), place.count);
    TreeMatch m{doc_, item.part, item.form, place.whole, place.start, place.stop, item.start, item.stop, place.count, item.nodes(),
                distance, alpha.distance(alpha_, longest)};
    if (std::min(item.nodes(), place.count) >= kMinNodes || m.alpha() >= kFloorTau) out_->push_back(m);
}

// A body pasted without its `def`: where a statement of the document equals one of an item's body in node types, the body is
// laid along the statements around it.
void TreeScanner::bare_bodies() {
    const auto& types = sequences_.types;
    const auto& sizes = sequences_.sizes;
    thread_local std::vector<std::uint32_t> siblings;
    for (std::uint32_t parent = 0; parent < types.size(); ++parent) {
        if (!is_block(types[parent])) continue;
        siblings.clear();
        for (std::uint32_t at = parent + 1; at < parent + sizes[parent]; at += sizes[at])
            if (is_statement(types[at])) siblings.push_back(at);
        for (std::size_t k = 0; k < siblings.size(); ++k) {
            const auto* places = index_.places_like(types.data() + siblings[k], sizes[siblings[k]]);
            if (!places) continue;
            const auto kind = static_cast<Type>(types[parent]);
            const bool in_function = kind == Type::FunctionDef || kind == Type::AsyncFunctionDef;
            for (const TreeIndex::Place& place : *places) lay_body(in_function, siblings, k, place);
        }
    }
}

void TreeScanner::lay_body(bool in_function, const std::vector<std::uint32_t>& siblings, std::size_t k, const TreeIndex::Place& place) {
    const ItemTree& item = index_.trees()[place.tree];
    const std::size_t from = k >= place.statement ? k - place.statement : 0;
    const std::size_t to = std::min(siblings.size(), k + (item.statements.size() - place.statement));
    if (in_function && from == 0 && to == siblings.size()) return;  // a whole body: compared with its function
    const std::uint32_t first = siblings[from], stop = siblings[to - 1] + sequences_.sizes[siblings[to - 1]];
    const std::uint32_t count = stop - first, m = item.nodes();
    if (count < kMinAlphaNodes) return;
    const std::uint32_t cutoff = cutoff_for(kFloorTau, count, m);
    if ((count > m ? count - m : m - count) > cutoff) return;
    symbols_.assign(sequences_.types.begin() + first, sequences_.types.begin() + stop);
    const std::uint32_t d = item.types_pattern.distance(symbols_, cutoff);
    if (d > cutoff) return;
    const Place there = place_of(first, stop);
    if (there.start < there.stop) consider(item, item.bare_pattern, there, d);
}

// The lines that statements stand on: from where the first of their names and literals begins its line to the end of the last's,
// as far as these are within kLineReach: a minified file is one line, and must not be gone through for every match.
TreeScanner::Place TreeScanner::place_of(std::uint32_t first, std::uint32_t stop) const {
    std::uint32_t begin = UINT32_MAX, end = 0;
    for (std::uint32_t i = first; i < stop; ++i) {
        const Node& node = tree_.nodes[sequences_.nodes[i]];
        if (node.stop <= node.start) continue;
        begin = std::min(begin, node.start);
        end = std::max(end, node.stop);
    }
    if (begin >= end) return {first, first, stop - first, 0, 0, true};
    const std::uint32_t reach = begin > kLineReach ? begin - kLineReach : 0;
    const std::string_view ahead = source_.substr(reach, begin - reach), behind = source_.substr(end, kLineReach);
    const std::size_t line = ahead.find_last_of("\r\n");
    if (line != std::string_view::npos || reach == 0) {
        const std::size_t text = ahead.find_first_not_of(" \t\f", line == std::string_view::npos ? 0 : line + 1);
        if (text != std::string_view::npos) begin = reach + static_cast<std::uint32_t>(text);
    }
    const std::size_t after = behind.find_first_of("\r\n");
    if (after != std::string_view::npos || behind.size() < kLineReach)
        end += static_cast<std::uint32_t>(after == std::string_view::npos ? behind.size() : after);
    return {first, first, stop - first, begin, end, true};
}

}  // namespace phi_fast::syntax
