// Patterns of match statements.
#include "syntax/parser.h"

namespace phi_fast::syntax {

NodeId Parser::pattern_top() {
    // case a, *b: an open sequence
    const auto one = [this]() -> NodeId {
        if (accept(Tok::star)) {
            expect(Tok::name);
            return make(Type::MatchStar);
        }
        return pattern();
    };
    const bool starred = is(Tok::star);
    const NodeId first = one();
    if (!is(Tok::comma)) {
        if (starred) throw Fault{};
        return first;
    }
    List all;
    add(all, first);
    while (accept(Tok::comma) && !is(Tok::colon) && !is(Tok::kw_if)) add(all, one());
    return wrap(Type::MatchSequence, all);
}

NodeId Parser::pattern() {
    const Deeper deeper(*this);
    NodeId value = closed_pattern();
    if (is(Tok::vbar)) {
        List choices;
        add(choices, value);
        while (accept(Tok::vbar)) add(choices, closed_pattern());
        value = wrap(Type::MatchOr, choices);
    }
    if (accept(Tok::kw_as)) {
        const Token name = expect(Tok::name);
        const NodeId as = make(Type::MatchAs, name);
        tree_->nodes[as].child = value;
        return as;
    }
    return value;
}

// -1, 1 + 2j, "text": literals as expressions.
NodeId Parser::value_expression() {
    const auto number = [this]() -> NodeId {
        if (accept(Tok::minus)) {
            const NodeId op = leaf(Type::USub);
            return wrap(Type::UnaryOp, op, make(Type::Constant, expect(Tok::number)));
        }
        return make(Type::Constant, expect(Tok::number));
    };
    if (is(Tok::string)) return strings();
    const NodeId left = number();
    if (is(Tok::plus) || is(Tok::minus)) {
        const NodeId op = leaf(take().kind == Tok::plus ? Type::Add : Type::Sub);
        return wrap(Type::BinOp, left, op, number());
    }
    return left;
}

NodeId Parser::closed_pattern() {
    switch (kind()) {
        case Tok::kw_none: case Tok::kw_true: case Tok::kw_false: take(); return make(Type::MatchSingleton);
        case Tok::number: case Tok::minus: case Tok::string: return wrap(Type::MatchValue, value_expression());
        case Tok::lsqb: take(); return sequence_pattern(Tok::rsqb);
        case Tok::lpar: {
            take();
            return sequence_pattern(Tok::rpar);
        }
        case Tok::lbrace: return mapping_pattern();
        case Tok::name: return name_or_class_pattern();
        default: throw Fault{};
    }
}

NodeId Parser::sequence_pattern(Tok close) {
    List all;
    bool comma = false, starred = false;
    while (!is(close)) {
        if (accept(Tok::star)) {
            expect(Tok::name);
            add(all, make(Type::MatchStar));
            starred = true;
        } else {
            add(all, pattern());
        }
        comma = accept(Tok::comma);
        if (!comma) break;
    }
    expect(close);
    // (x) is x itself; (x,), (*x), () and every bracket are sequences.
    if (close == Tok::rpar && !comma && !starred && !all.empty() && all.first == all.last) return all.first;
    return wrap(Type::MatchSequence, all);
}

NodeId Parser::mapping_pattern() {
    expect(Tok::lbrace);
    List keys, patterns;
    while (!is(Tok::rbrace)) {
        if (accept(Tok::double_star)) {
            expect(Tok::name);
        } else {
            if (is(Tok::kw_none) || is(Tok::kw_true) || is(Tok::kw_false)) {
                add(keys, make(Type::Constant, take()));
            } else if (is(Tok::name)) {
                NodeId key = make(Type::Name, take());
                while (accept(Tok::dot)) {
                    const NodeId attribute = make(Type::Attribute, expect(Tok::name));
                    tree_->nodes[attribute].child = key;
                    key = attribute;
                }
                add(keys, key);
            } else {
                add(keys, value_expression());
            }
            expect(Tok::colon);
            add(patterns, pattern());
        }
        if (!accept(Tok::comma)) break;
    }
    expect(Tok::rbrace);
    add(keys, patterns);
    return wrap(Type::MatchMapping, keys);
}

NodeId Parser::name_or_class_pattern() {
    const Token first = take();
    if (!is(Tok::dot) && !is(Tok::lpar)) return make(Type::MatchAs, first);
    NodeId name = make(Type::Name, first);
    while (accept(Tok::dot)) {
        const NodeId attribute = make(Type::Attribute, expect(Tok::name));
        tree_->nodes[attribute].child = name;
        name = attribute;
    }
    if (!accept(Tok::lpar)) return wrap(Type::MatchValue, name);
    List all, keywords;
    add(all, name);
    while (!is(Tok::rpar)) {
        if (is(Tok::name) && kind(1) == Tok::assign) {
            take();
            take();
            add(keywords, pattern());
        } else {
            add(all, pattern());
        }
        if (!accept(Tok::comma)) break;
    }
    expect(Tok::rpar);
    add(all, keywords);
    return wrap(Type::MatchClass, all);
}

}  // namespace phi_fast::syntax
