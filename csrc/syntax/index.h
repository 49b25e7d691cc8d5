// Items' functions against documents' functions: the syntax channel.
#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "syntax/neighbours.h"
#include "syntax/sequence.h"

namespace phi_fast::syntax {

// Node types alone tell functions of at least so many nodes apart; alpha-normalised forms those of kMinAlphaNodes. What is
// smaller is an idiom, and is not compared at all.
inline constexpr std::uint32_t kMinNodes = 25, kMinAlphaNodes = 13;
// A match is recorded from this match rate on: of node types where both trees are large enough, else of alpha forms.
inline constexpr double kFloorTau = 0.8;
// Statements at least this large tell where a bare body may stand.
inline constexpr std::uint32_t kMinAnchorNodes = 6;

enum class Form : std::uint8_t { function = 0, body = 1 };

// One tree of an item that documents are compared with.
struct ItemTree {
    std::uint32_t part;         // the caller's number of the solution it stands in
    Form form;
    std::uint32_t start, stop;  // characters of the solution
    std::vector<std::uint8_t> types;
    std::vector<std::uint32_t> statements;  // body: places of its top-level statements in `types`
    Pattern types_pattern, alpha_pattern;
    Pattern bare_pattern;  // body: the alpha form of one that stands without the parameters of its function
    std::uint32_t nodes() const { return static_cast<std::uint32_t>(types.size()); }
};

struct TreeMatch {
    std::uint32_t doc = 0;  // the caller's number of the document
    std::uint32_t part = 0;
    Form form = Form::function;
    bool whole = true;                           // no syntax error inside the document's function
    std::uint32_t doc_start = 0, doc_stop = 0;   // bytes of the document
    std::uint32_t item_start = 0, item_stop = 0; // characters of the solution
    std::uint32_t nodes = 0, item_nodes = 0;
    std::uint32_t distance = 0, alpha_distance = 0;  // of node types and of alpha-normalised forms

    std::uint32_t longest() const { return nodes > item_nodes ? nodes : item_nodes; }
    double tau() const { return 1.0 - static_cast<double>(distance) / longest(); }
    double alpha() const { return 1.0 - static_cast<double>(alpha_distance) / longest(); }
};

// Characters before a byte of UTF-8 text.
std::uint32_t characters(std::string_view text, std::uint32_t byte);

// Hash of a subtree's node types.
std::uint64_t subtree_hash(const std::uint8_t* types, std::uint32_t count);

class TreeIndex {
public:
    // Adds an item: the question (a signature and docstring, or prose, or nothing) and the solution, which may be a bare body
    // that goes on where the question ends. Returns the nodes of its largest tree that is not an idiom, or 0.
    // A helper is not its item: of several functions those are taken that hold half the solution's nodes, or else the largest.
    std::uint32_t add(std::uint32_t part, std::string_view question, std::string_view solution);
    // Call once after the last add.
    void finish();

    const std::vector<ItemTree>& trees() const { return trees_; }
    const std::vector<std::uint32_t>& of_form(Form f) const { return by_form_[static_cast<int>(f)]; }
    const Neighbours& neighbours(Form f) const { return neighbours_[static_cast<int>(f)]; }
    struct Place {
        std::uint32_t tree, statement;  // a body, and which of its statements
    };
    // Where statements like this one stand in items' bodies; null where nowhere.
    const std::vector<Place>* places_like(const std::uint8_t* types, std::uint32_t count) const {
        if (count >= anchor_sizes_.size() || !anchor_sizes_[count]) return nullptr;
        const auto found = places_.find(subtree_hash(types, count));
        return found == places_.end() ? nullptr : &found->second;
    }

private:
    void add_tree(std::uint32_t part, Form form, std::uint32_t start, std::uint32_t stop, std::string_view source, const Tree& tree,
                  const Sequences& s, std::uint32_t scope, std::uint32_t first, std::uint32_t count);

    std::vector<ItemTree> trees_;
    std::vector<std::uint32_t> by_form_[2];
    std::vector<Neighbours> neighbours_;
    std::unordered_map<std::uint64_t, std::vector<Place>> places_;
    std::vector<bool> anchor_sizes_;  // by nodes: whether a statement in places_ has so many
};

// One thread's scratch memory; the index is shared.
class TreeScanner {
public:
    explicit TreeScanner(const TreeIndex& index) : index_(index) {}
    // Appends the matches of one document, sorted by part, place, form and item tree: for each of these the closest.
    void scan(std::string_view source, std::uint32_t doc, std::vector<TreeMatch>& out);

private:
    struct Place {
        std::uint32_t scope, first, count;  // nodes: where its function begins (`first` where it has none), and its own
        std::uint32_t start, stop;   // bytes
        bool whole;
    };
    void compare(Form form, const Place& place);
    void bare_bodies();
    void lay_body(bool in_function, const std::vector<std::uint32_t>& siblings, std::size_t at, const TreeIndex::Place& place);
    Place place_of(std::uint32_t first, std::uint32_t stop) const;
    void consider(const ItemTree& item, const Pattern& alpha, const Place& place, std::uint32_t distance);

    const TreeIndex& index_;
    std::string_view source_;
    Parser parser_;
    Tree tree_;
    Sequences sequences_;
    AlphaForm alpha_form_;
    std::vector<std::uint32_t> alpha_, symbols_;
    std::uint32_t alpha_scope_ = 0, alpha_first_ = 0, alpha_count_ = 0;  // what alpha_ is the form of
    std::vector<Neighbour> near_;
    std::uint32_t doc_ = 0;
    std::vector<TreeMatch>* out_ = nullptr;
};

}  // namespace phi_fast::syntax
