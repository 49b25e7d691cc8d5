// Python source to a tree of ast node types: the tree CPython's ast module gives, without its objects.
//
// A recursive-descent parser over tokens. A syntax error ends one statement, not the file: the functions around it are
// marked as not whole, and parsing goes on with the next line.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "syntax/lexer.h"
#include "syntax/nodes.h"

namespace phi_fast::syntax {

using NodeId = std::uint32_t;  // 0: none

struct Node {
    Type type;
    NodeId child = 0, next = 0;          // first child, next sibling
    std::uint32_t start = 0, stop = 0;   // Name, Attribute, arg, keyword, alias, Constant, definitions: bytes of what names them;
                                         // other statements: their first token
};

struct Function {
    NodeId node = 0;
    std::uint32_t start = 0, stop = 0;  // bytes of the source, from `def` (or `async`) to the end of its last statement
    std::uint32_t line_start = 0;       // byte where its first line (decorators included) starts
    bool whole = true;                  // no syntax error inside
};

struct Tree {
    std::vector<Node> nodes;  // nodes[0] is unused
    NodeId module = 0;
    std::vector<Function> functions;  // in the order their `def` stands in the source
    std::uint32_t errors = 0;         // statements that did not parse
};

// Nesting deeper than this is an error of its statement; CPython stops at 200 brackets and 100 indentations.
inline constexpr int kMaxNesting = 1000;

class Parser {
public:
    // The tree is written into `tree`, whose memory is reused from call to call.
    void parse(std::string_view source, Tree& tree);

private:
    struct Fault {};
    struct List {
        NodeId first = 0, last = 0;
        bool empty() const { return first == 0; }
    };
    struct Deeper {
        explicit Deeper(Parser& p) : parser(p) {
            if (++p.depth_ > kMaxNesting) {
                --p.depth_;
                throw Fault{};
            }
        }
        Deeper(const Deeper&) = delete;
        ~Deeper() { --parser.depth_; }
        Parser& parser;
    };

    // Tokens
    const Token& peek(std::size_t ahead = 0) const { return tokens_[at_ + ahead < tokens_.size() ? at_ + ahead : tokens_.size() - 1]; }
    Tok kind() const { return tokens_[at_].kind; }
    Tok kind(std::size_t ahead) const { return peek(ahead).kind; }
    bool is(Tok k) const { return kind() == k; }
    Token take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
    bool accept(Tok k) {
        if (!is(k)) return false;
        take();
        return true;
    }
    Token expect(Tok k) {
        if (!is(k)) throw Fault{};
        return take();
    }
    std::string_view text(const Token& t) const { return source_.substr(t.start, t.stop - t.start); }
    bool is_word(std::string_view word, std::size_t ahead = 0) const { return kind(ahead) == Tok::name && text(peek(ahead)) == word; }

    // Nodes
    NodeId make(Type type, std::uint32_t start = 0, std::uint32_t stop = 0);
    NodeId make(Type type, const Token& t) { return make(type, t.start, t.stop); }
    NodeId leaf(Type type) { return make(type); }
    void add(List& list, NodeId node);
    void add(List& list, const List& more);
    NodeId wrap(Type type, NodeId a, NodeId b = 0, NodeId c = 0);
    NodeId wrap(Type type, const List& children);
    void adopt(NodeId parent, const List& children);

    // Statements (statements.cpp, compound.cpp, definitions.cpp)
    void statements(List& into, bool top);
    void statement(List& into);
    void any_statement(List& into);
    void simple_statement(List& into);
    void expression_statement(List& into);
    void block(List& into, bool docstring = false);
    void drop_docstring(List& body) const;
    void recover(List& into, std::size_t began);
    NodeId if_statement();
    NodeId loop(Type type);
    NodeId with_statement(Type type);
    NodeId try_statement();
    NodeId function(Type type, List decorators, std::uint32_t line_start);
    NodeId class_definition(List decorators);
    void decorated(List& into);
    NodeId import_statement();
    NodeId from_statement();
    NodeId match_statement();
    bool match_ahead() const;
    bool with_items_in_parentheses() const;
    NodeId type_alias();
    List type_parameters();
    NodeId python2_print();

    // Patterns (patterns.cpp)
    NodeId pattern_top();
    NodeId pattern();
    NodeId closed_pattern();
    NodeId sequence_pattern(Tok close);
    NodeId mapping_pattern();
    NodeId name_or_class_pattern();
    NodeId value_expression();

    // Expressions (expressions.cpp)
    NodeId star_expressions();
    NodeId star_or_named();
    NodeId star_expression();
    NodeId yield_or_stars();
    NodeId yield_expression();
    NodeId named_expression();
    NodeId expression();
    NodeId disjunction();
    NodeId conjunction();
    NodeId inversion();
    NodeId comparison();
    NodeId binary(int level);
    NodeId factor();
    NodeId power();
    NodeId primary();
    NodeId atom();
    NodeId parenthesised();
    NodeId list_display();
    NodeId brace_display();
    NodeId call(NodeId function);
    NodeId subscript(NodeId value);
    NodeId slice();
    NodeId lambda();
    NodeId parameters(Tok close, bool annotated);
    NodeId parameter(bool annotated, bool starred);
    List comprehension_clauses();
    bool comprehension_ahead() const { return is(Tok::kw_for) || (is(Tok::kw_async) && kind(1) == Tok::kw_for); }
    NodeId target_list();
    bool expression_starts() const;

    // Strings (strings.cpp)
    NodeId strings();
    struct Pieces {
        List values;
        bool literal = false;  // text waiting to become a Constant
        std::uint32_t start = 0, stop = 0;
    };
    void flush(Pieces& pieces);
    void format_pieces(std::size_t from, std::size_t to, std::uint8_t prefix, bool spec, Pieces& pieces, int depth);
    std::size_t replacement_field(std::size_t at, std::size_t to, std::uint8_t prefix, Pieces& pieces, int depth);

    std::string_view source_;
    Lexer lexer_{{}};
    std::vector<Token> tokens_;
    std::size_t at_ = 0;
    int depth_ = 0;
    Tree* tree_ = nullptr;
    std::vector<std::uint32_t> open_functions_;  // places in tree_->functions
};

}  // namespace phi_fast::syntax
