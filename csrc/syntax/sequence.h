// From a tree to what distances compare: the preorder sequence of node types, function by function, and the
// alpha-normalised form that keeps what a renaming cannot change.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "syntax/parser.h"

namespace phi_fast::syntax {

struct FunctionRange {
    std::uint32_t first, count;            // nodes of the function in Sequences::types
    std::uint32_t body_first, body_count;  // those of its body alone (docstring left out)
    std::uint32_t start, stop;             // bytes of the source: from its `def` to its last statement
    std::uint32_t whole;                   // 1: no syntax error inside
};

struct Sequences {
    std::vector<std::uint8_t> types;   // Type of every node of the file, in preorder
    std::vector<std::uint32_t> sizes;  // nodes in the subtree that starts there
    std::vector<NodeId> nodes;         // the node itself, in the tree it was made from
    std::vector<FunctionRange> functions;
};

void preorder(const Tree& tree, Sequences& out);

// The alpha-normalised form of nodes [first, first + count): one symbol a node. Names are numbered by first use, but for
// builtins, which keep their text as attributes, keyword names and literals do. A name that is a parameter, assigned or
// defined here is no builtin; a body's function, whose name and parameters count too, begins at node `scope`.
class AlphaForm {
public:
    void make(std::string_view source, const Tree& tree, const Sequences& sequences, std::uint32_t scope, std::uint32_t first,
              std::uint32_t count, std::vector<std::uint32_t>& out);

private:
    void add_target(std::string_view source, const Tree& tree, const Sequences& sequences, std::uint32_t at);
    void find_own(std::string_view source, const Tree& tree, const Sequences& sequences, std::uint32_t scope, std::uint32_t first,
                  std::uint32_t count);

    struct Numbered {
        std::string_view name;
        std::uint32_t number;
    };
    std::vector<Numbered> names_;  // open addressing by hash
    std::vector<std::uint32_t> used_;
    std::vector<std::string_view> own_;  // names that are no builtins here, whatever they are called
};

}  // namespace phi_fast::syntax
