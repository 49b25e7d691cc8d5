// Statements with blocks: if, for, while, with, try, match.
#include "syntax/parser.h"

namespace phi_fast::syntax {

NodeId Parser::if_statement() {
    // elif chains are as long as they like: built by a loop, each If the only statement of the orelse before it.
    NodeId outermost = 0, innermost = 0;
    List innermost_parts;
    while (true) {
        take();  // if, elif
        List parts;
        add(parts, named_expression());
        block(parts);
        const NodeId node = wrap(Type::If, parts);
        if (innermost) {
            add(innermost_parts, node);
        } else {
            outermost = node;
        }
        innermost = node;
        innermost_parts = parts;
        if (!is(Tok::kw_elif)) break;
    }
    if (accept(Tok::kw_else)) {
        block(innermost_parts);
        adopt(innermost, innermost_parts);
    }
    return outermost;
}

NodeId Parser::loop(Type type) {
    List parts;
    if (type == Type::While) {
        add(parts, named_expression());
    } else {
        add(parts, target_list());
        expect(Tok::kw_in);
        add(parts, star_expressions());
    }
    block(parts);
    if (accept(Tok::kw_else)) block(parts);
    return wrap(type, parts);
}

// `with (a as b, c):` against `with (a, b)[0]:` and `with (yield x):`
bool Parser::with_items_in_parentheses() const {
    int depth = 0, lambdas = 0;  // (lambda a, *b: c) has a star that makes no tuple
    for (std::size_t k = 0;; ++k) {
        switch (kind(k)) {
            case Tok::kw_lambda: lambdas += depth == 1; break;
            case Tok::colon: lambdas -= depth == 1 && lambdas > 0; break;
            case Tok::lpar: case Tok::lsqb: case Tok::lbrace: ++depth; break;
            case Tok::rpar: case Tok::rsqb: case Tok::rbrace:
                if (--depth == 0) return kind(k + 1) == Tok::colon;
                break;
            case Tok::kw_for: case Tok::walrus: case Tok::kw_yield:
                if (depth == 1) return false;
                break;
            case Tok::star:
                if (depth == 1 && !lambdas && (kind(k - 1) == Tok::lpar || kind(k - 1) == Tok::comma)) return false;
                break;
            case Tok::newline: case Tok::end: case Tok::error: return false;
            default: break;
        }
    }
}

NodeId Parser::with_statement(Type type) {
    List parts;
    const auto item = [&] {
        const NodeId context = expression();
        NodeId target = 0;
        if (accept(Tok::kw_as)) target = accept(Tok::star) ? wrap(Type::Starred, binary(0)) : binary(0);
        add(parts, wrap(Type::withitem, context, target));
    };
    if (is(Tok::lpar) && kind(1) != Tok::rpar && with_items_in_parentheses()) {
        take();
        do {
            if (is(Tok::rpar)) break;
            item();
        } while (accept(Tok::comma));
        expect(Tok::rpar);
    } else {
        do item();
        while (accept(Tok::comma));
    }
    block(parts);
    return wrap(type, parts);
}

NodeId Parser::try_statement() {
    take();
    List parts;
    block(parts);
    bool star = false;
    while (is(Tok::kw_except)) {
        take();
        List handler;
        if (accept(Tok::star)) star = true;
        if (!is(Tok::colon)) {
            add(handler, expression());
            if (accept(Tok::kw_as)) {
                expect(Tok::name);
            } else if (accept(Tok::comma)) {
                binary(0);  // Python 2: except E, e; the name is no node, as in `as e`
            }
        }
        block(handler);
        add(parts, wrap(Type::ExceptHandler, handler));
    }
    if (accept(Tok::kw_else)) block(parts);
    if (accept(Tok::kw_finally)) block(parts);
    return wrap(star ? Type::TryStar : Type::Try, parts);
}

// `match` is a keyword only where a line `match ...:` is followed by an indented `case`.
bool Parser::match_ahead() const {
    switch (kind(1)) {
        case Tok::assign: case Tok::dot: case Tok::comma: case Tok::newline: case Tok::rpar: case Tok::colon: case Tok::end: return false;
        default: break;
    }
    std::size_t k = 1;
    while (kind(k) != Tok::newline && kind(k) != Tok::end && kind(k) != Tok::error) ++k;
    return kind(k) == Tok::newline && kind(k - 1) == Tok::colon && kind(k + 1) == Tok::indent && is_word("case", k + 2);
}

NodeId Parser::match_statement() {
    take();
    List parts;
    // The subject may be a bare tuple, with stars and walruses.
    const NodeId first = star_or_named();
    if (is(Tok::comma)) {
        List elements;
        add(elements, first);
        while (accept(Tok::comma) && !is(Tok::colon)) add(elements, star_or_named());
        add(parts, wrap(Type::Tuple, elements));
    } else {
        add(parts, first);
    }
    expect(Tok::colon);
    expect(Tok::newline);
    expect(Tok::indent);
    // An error in one case leaves the others and the end of the block as they are.
    while (!is(Tok::end) && !accept(Tok::dedent)) {
        const std::size_t began = at_;
        try {
            if (!is_word("case")) throw Fault{};
            take();
            List one;
            add(one, pattern_top());
            if (accept(Tok::kw_if)) add(one, named_expression());
            block(one);
            add(parts, wrap(Type::match_case, one));
        } catch (const Fault&) {
            recover(parts, began);
        }
    }
    return wrap(Type::Match, parts);
}

}  // namespace phi_fast::syntax
