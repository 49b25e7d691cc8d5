// The whole parse, and how nodes are put together.
#include "syntax/parser.h"

namespace phi_fast::syntax {

void Parser::parse(std::string_view source, Tree& tree) {
    source_ = source;
    lexer_ = Lexer(source);
    lexer_.file(tokens_);
    at_ = 0;
    depth_ = 0;
    tree_ = &tree;
    tree.nodes.clear();
    tree.nodes.push_back({Type::Module});
    tree.functions.clear();
    tree.errors = 0;
    open_functions_.clear();
    List body;
    while (!is(Tok::end)) statements(body, true);
    drop_docstring(body);
    tree.module = wrap(Type::Module, body);
}

NodeId Parser::make(Type type, std::uint32_t start, std::uint32_t stop) {
    tree_->nodes.push_back({type, 0, 0, start, stop});
    return static_cast<NodeId>(tree_->nodes.size() - 1);
}

void Parser::add(List& list, NodeId node) {
    if (list.last) {
        tree_->nodes[list.last].next = node;
    } else {
        list.first = node;
    }
    list.last = node;
}

void Parser::add(List& list, const List& more) {
    if (more.empty()) return;
    add(list, more.first);
    list.last = more.last;
}

void Parser::adopt(NodeId parent, const List& children) { tree_->nodes[parent].child = children.first; }

NodeId Parser::wrap(Type type, NodeId a, NodeId b, NodeId c) {
    const NodeId node = make(type);
    List children;
    if (a) add(children, a);
    if (b) add(children, b);
    if (c) add(children, c);
    adopt(node, children);
    return node;
}

NodeId Parser::wrap(Type type, const List& children) {
    const NodeId node = make(type);
    adopt(node, children);
    return node;
}

const char* type_name(Type type) {
    static constexpr const char* kNames[] = {
#define PHI_FAST_NODE_NAME(name) #name,
        PHI_FAST_NODE_TYPES(PHI_FAST_NODE_NAME)
#undef PHI_FAST_NODE_NAME
    };
    return type < Type::count ? kNames[static_cast<int>(type)] : "?";
}

}  // namespace phi_fast::syntax
