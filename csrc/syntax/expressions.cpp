// Expressions, by the precedence of the Python reference, lowest first.
#include "syntax/parser.h"

namespace phi_fast::syntax {
namespace {

// Binary operators below comparisons and above unary minus: level 0 is '|', 5 the multiplications.
struct Operator {
    Type type;
    int level;
};
Operator binary_operator(Tok t) {
    switch (t) {
        case Tok::vbar: return {Type::BitOr, 0};
        case Tok::circumflex: return {Type::BitXor, 1};
        case Tok::amper: return {Type::BitAnd, 2};
        case Tok::lshift: return {Type::LShift, 3};
        case Tok::rshift: return {Type::RShift, 3};
        case Tok::plus: return {Type::Add, 4};
        case Tok::minus: return {Type::Sub, 4};
        case Tok::star: return {Type::Mult, 5};
        case Tok::slash: return {Type::Div, 5};
        case Tok::double_slash: return {Type::FloorDiv, 5};
        case Tok::percent: return {Type::Mod, 5};
        case Tok::at: return {Type::MatMult, 5};
        default: return {Type::count, -1};
    }
}

}  // namespace

bool Parser::expression_starts() const {
    switch (kind()) {
        case Tok::name: case Tok::number: case Tok::string: case Tok::lpar: case Tok::lsqb: case Tok::lbrace: case Tok::minus:
        case Tok::plus: case Tok::tilde: case Tok::kw_not: case Tok::kw_lambda: case Tok::kw_await: case Tok::kw_none:
        case Tok::kw_true: case Tok::kw_false: case Tok::ellipsis: case Tok::star: case Tok::backtick: case Tok::kw_yield:
            return true;
        default: return false;
    }
}

NodeId Parser::yield_or_stars() { return is(Tok::kw_yield) ? yield_expression() : star_expressions(); }

NodeId Parser::yield_expression() {
    expect(Tok::kw_yield);
    if (accept(Tok::kw_from)) return wrap(Type::YieldFrom, expression());
    return wrap(Type::Yield, expression_starts() && !is(Tok::kw_yield) ? star_expressions() : 0);
}

// a, *b, c: one expression, or a Tuple of them.
NodeId Parser::star_expressions() {
    const NodeId first = star_expression();
    if (!is(Tok::comma)) return first;
    List elements;
    add(elements, first);
    while (accept(Tok::comma) && expression_starts() && !is(Tok::kw_yield)) add(elements, star_expression());
    return wrap(Type::Tuple, elements);
}

NodeId Parser::star_expression() {
    if (accept(Tok::star)) return wrap(Type::Starred, binary(0));
    return expression();
}

NodeId Parser::star_or_named() {
    if (accept(Tok::star)) return wrap(Type::Starred, binary(0));
    return named_expression();
}

NodeId Parser::named_expression() {
    if (is(Tok::name) && kind(1) == Tok::walrus) {
        const NodeId target = make(Type::Name, take());
        take();
        return wrap(Type::NamedExpr, target, expression());
    }
    return expression();
}

NodeId Parser::expression() {
    const Deeper deeper(*this);
    if (is(Tok::kw_lambda)) return lambda();
    const NodeId body = disjunction();
    if (!is(Tok::kw_if)) return body;
    take();
    const NodeId test = disjunction();
    expect(Tok::kw_else);
    const NodeId orelse = expression();
    return wrap(Type::IfExp, test, body, orelse);
}

NodeId Parser::lambda() {
    expect(Tok::kw_lambda);
    const NodeId arguments = parameters(Tok::colon, false);
    expect(Tok::colon);
    return wrap(Type::Lambda, arguments, expression());
}

NodeId Parser::disjunction() {
    const NodeId first = conjunction();
    if (!is(Tok::kw_or)) return first;
    List all;
    add(all, leaf(Type::Or));
    add(all, first);
    while (accept(Tok::kw_or)) add(all, conjunction());
    return wrap(Type::BoolOp, all);
}

NodeId Parser::conjunction() {
    const NodeId first = inversion();
    if (!is(Tok::kw_and)) return first;
    List all;
    add(all, leaf(Type::And));
    add(all, first);
    while (accept(Tok::kw_and)) add(all, inversion());
    return wrap(Type::BoolOp, all);
}

NodeId Parser::inversion() {
    if (!is(Tok::kw_not)) return comparison();
    const Deeper deeper(*this);
    take();
    const NodeId op = leaf(Type::Not);
    return wrap(Type::UnaryOp, op, inversion());
}

NodeId Parser::comparison() {
    const NodeId left = binary(0);
    List operators, operands;
    while (true) {
        Type type;
        switch (kind()) {
            case Tok::eq: type = Type::Eq; break;
            case Tok::ne: type = Type::NotEq; break;
            case Tok::lt: type = Type::Lt; break;
            case Tok::le: type = Type::LtE; break;
            case Tok::gt: type = Type::Gt; break;
            case Tok::ge: type = Type::GtE; break;
            case Tok::kw_in: type = Type::In; break;
            case Tok::kw_is: type = kind(1) == Tok::kw_not ? Type::IsNot : Type::Is; break;
            case Tok::kw_not:
                if (kind(1) != Tok::kw_in) goto done;
                type = Type::NotIn;
                break;
            default: goto done;
        }
        take();
        if (type == Type::IsNot || type == Type::NotIn) take();
        add(operators, leaf(type));
        add(operands, binary(0));
    }
done:
    if (operators.empty()) return left;
    List all;
    add(all, left);
    add(all, operators);
    add(all, operands);
    return wrap(Type::Compare, all);
}

NodeId Parser::binary(int level) {
    NodeId left = factor();
    while (true) {
        const Operator op = binary_operator(kind());
        if (op.level < level) return left;
        take();
        const NodeId type = leaf(op.type);
        const NodeId right = binary(op.level + 1);
        left = wrap(Type::BinOp, left, type, right);
    }
}

NodeId Parser::factor() {
    Type type;
    switch (kind()) {
        case Tok::plus: type = Type::UAdd; break;
        case Tok::minus: type = Type::USub; break;
        case Tok::tilde: type = Type::Invert; break;
        default: return power();
    }
    const Deeper deeper(*this);
    take();
    const NodeId op = leaf(type);
    return wrap(Type::UnaryOp, op, factor());
}

NodeId Parser::power() {
    NodeId base;
    if (is(Tok::kw_await)) {
        take();
        base = wrap(Type::Await, primary());
    } else {
        base = primary();
    }
    if (!accept(Tok::double_star)) return base;
    const Deeper deeper(*this);
    const NodeId op = leaf(Type::Pow);
    return wrap(Type::BinOp, base, op, factor());
}

NodeId Parser::primary() {
    NodeId value = atom();
    while (true) {
        switch (kind()) {
            case Tok::dot: {
                take();
                const Token name = expect(Tok::name);
                const NodeId attribute = make(Type::Attribute, name);
                tree_->nodes[attribute].child = value;
                value = attribute;
                break;
            }
            case Tok::lpar: value = call(value); break;
            case Tok::lsqb: value = subscript(value); break;
            default: return value;
        }
    }
}

NodeId Parser::atom() {
    switch (kind()) {
        case Tok::name: return make(Type::Name, take());
        case Tok::number: case Tok::ellipsis: case Tok::kw_none: case Tok::kw_true: case Tok::kw_false:
            return make(Type::Constant, take());
        case Tok::string: return strings();
        case Tok::lpar: return parenthesised();
        case Tok::lsqb: return list_display();
        case Tok::lbrace: return brace_display();
        case Tok::backtick: {  // Python 2: `x` is repr(x)
            const Deeper deeper(*this);
            const Token quote = take();
            const NodeId name = make(Type::Name, quote);
            const NodeId value = star_expressions();
            expect(Tok::backtick);
            return wrap(Type::Call, name, value);
        }
        default: throw Fault{};
    }
}

NodeId Parser::parenthesised() {
    const Deeper deeper(*this);
    expect(Tok::lpar);
    if (accept(Tok::rpar)) return make(Type::Tuple);
    if (is(Tok::kw_yield)) {
        const NodeId value = yield_expression();
        expect(Tok::rpar);
        return value;
    }
    const bool starred = is(Tok::star);
    const NodeId first = star_or_named();
    if (comprehension_ahead()) {
        List all;
        add(all, first);
        add(all, comprehension_clauses());
        expect(Tok::rpar);
        return wrap(Type::GeneratorExp, all);
    }
    if (is(Tok::comma)) {
        List elements;
        add(elements, first);
        while (accept(Tok::comma) && !is(Tok::rpar)) add(elements, star_or_named());
        expect(Tok::rpar);
        return wrap(Type::Tuple, elements);
    }
    if (starred) throw Fault{};
    expect(Tok::rpar);
    return first;
}

NodeId Parser::list_display() {
    const Deeper deeper(*this);
    expect(Tok::lsqb);
    List elements;
    if (accept(Tok::rsqb)) return make(Type::List);
    add(elements, star_or_named());
    if (comprehension_ahead()) {
        add(elements, comprehension_clauses());
        expect(Tok::rsqb);
        return wrap(Type::ListComp, elements);
    }
    while (accept(Tok::comma) && !is(Tok::rsqb)) add(elements, star_or_named());
    expect(Tok::rsqb);
    return wrap(Type::List, elements);
}

NodeId Parser::brace_display() {
    const Deeper deeper(*this);
    expect(Tok::lbrace);
    if (accept(Tok::rbrace)) return make(Type::Dict);
    List keys, values;
    bool dict = false;
    if (accept(Tok::double_star)) {
        dict = true;
        add(values, binary(0));
    } else {
        const bool starred = is(Tok::star);
        const NodeId first = star_or_named();
        if (!starred && accept(Tok::colon)) {
            dict = true;
            add(keys, first);
            add(values, expression());
            if (comprehension_ahead()) {
                add(keys, values);
                add(keys, comprehension_clauses());
                expect(Tok::rbrace);
                return wrap(Type::DictComp, keys);
            }
        } else {
            add(values, first);
            if (comprehension_ahead()) {
                add(values, comprehension_clauses());
                expect(Tok::rbrace);
                return wrap(Type::SetComp, values);
            }
        }
    }
    while (accept(Tok::comma) && !is(Tok::rbrace)) {
        if (!dict) {
            add(values, star_or_named());
        } else if (accept(Tok::double_star)) {
            add(values, binary(0));
        } else {
            add(keys, expression());
            expect(Tok::colon);
            add(values, expression());
        }
    }
    expect(Tok::rbrace);
    if (!dict) return wrap(Type::Set, values);
    add(keys, values);
    return wrap(Type::Dict, keys);
}

// for x in y if z ..., one or more.
Parser::List Parser::comprehension_clauses() {
    List clauses;
    while (comprehension_ahead()) {
        accept(Tok::kw_async);
        expect(Tok::kw_for);
        List parts;
        add(parts, target_list());
        expect(Tok::kw_in);
        add(parts, disjunction());
        if (is(Tok::comma) && kind(1) != Tok::rsqb && kind(1) != Tok::rpar && kind(1) != Tok::rbrace) {
            throw Fault{};  // Python 2's `for x in 1, 2` is not read
        }
        while (accept(Tok::kw_if)) add(parts, disjunction());
        add(clauses, wrap(Type::comprehension, parts));
    }
    return clauses;
}

// Targets of `for` and `del`: no comparison, so that `in` is left alone.
NodeId Parser::target_list() {
    const auto target = [this] { return accept(Tok::star) ? wrap(Type::Starred, binary(0)) : binary(0); };
    const NodeId first = target();
    if (!is(Tok::comma)) return first;
    List elements;
    add(elements, first);
    while (accept(Tok::comma) && expression_starts()) add(elements, target());
    return wrap(Type::Tuple, elements);
}

NodeId Parser::call(NodeId function) {
    const Deeper deeper(*this);
    expect(Tok::lpar);
    List arguments, keywords;
    add(arguments, function);
    while (!is(Tok::rpar)) {
        if (accept(Tok::star)) {
            add(arguments, wrap(Type::Starred, expression()));
        } else if (accept(Tok::double_star)) {
            add(keywords, wrap(Type::keyword, expression()));
        } else if (is(Tok::name) && kind(1) == Tok::assign) {
            const NodeId keyword = make(Type::keyword, take());
            take();
            const NodeId value = expression();
            tree_->nodes[keyword].child = value;
            add(keywords, keyword);
        } else {
            const NodeId value = named_expression();
            if (comprehension_ahead()) {
                List all;
                add(all, value);
                add(all, comprehension_clauses());
                add(arguments, wrap(Type::GeneratorExp, all));
            } else {
                add(arguments, value);
            }
        }
        if (!accept(Tok::comma)) break;
    }
    expect(Tok::rpar);
    add(arguments, keywords);
    return wrap(Type::Call, arguments);
}

NodeId Parser::subscript(NodeId value) {
    const Deeper deeper(*this);
    expect(Tok::lsqb);
    const bool starred = is(Tok::star);
    const NodeId first = slice();
    NodeId index = first;
    if (is(Tok::comma) || starred) {
        List elements;
        add(elements, first);
        while (accept(Tok::comma) && !is(Tok::rsqb)) add(elements, slice());
        index = wrap(Type::Tuple, elements);
    }
    expect(Tok::rsqb);
    return wrap(Type::Subscript, value, index);
}

NodeId Parser::slice() {
    if (accept(Tok::star)) return wrap(Type::Starred, binary(0));
    List parts;
    if (!is(Tok::colon)) {
        const NodeId lower = named_expression();
        if (!is(Tok::colon)) return lower;
        add(parts, lower);
    }
    expect(Tok::colon);
    if (!is(Tok::colon) && !is(Tok::comma) && !is(Tok::rsqb)) add(parts, expression());
    if (accept(Tok::colon) && !is(Tok::comma) && !is(Tok::rsqb)) add(parts, expression());
    return wrap(Type::Slice, parts);
}

NodeId Parser::parameter(bool annotated, bool starred) {
    if (is(Tok::lpar)) {  // Python 2's tuple parameters
        const NodeId names = parenthesised();
        return wrap(Type::arg, names);
    }
    const NodeId arg = make(Type::arg, expect(Tok::name));
    if (annotated && accept(Tok::colon)) {
        const NodeId annotation = starred && is(Tok::star) ? star_expression() : expression();
        tree_->nodes[arg].child = annotation;
    }
    return arg;
}

// Parameters up to `close`, in the order of ast.arguments' fields.
NodeId Parser::parameters(Tok close, bool annotated) {
    List positional, keyword_only, keyword_defaults, defaults;
    NodeId vararg = 0, kwarg = 0;
    bool after_star = false;
    while (!is(close)) {
        if (accept(Tok::slash)) {
            if (positional.empty() || after_star) throw Fault{};
        } else if (accept(Tok::double_star)) {
            kwarg = parameter(annotated, false);
            accept(Tok::comma);
            break;
        } else if (accept(Tok::star)) {
            if (after_star) throw Fault{};
            after_star = true;
            if (!is(Tok::comma)) vararg = parameter(annotated, true);
        } else {
            const NodeId arg = parameter(annotated, false);
            add(after_star ? keyword_only : positional, arg);
            if (accept(Tok::assign)) add(after_star ? keyword_defaults : defaults, expression());
        }
        if (!accept(Tok::comma)) break;
    }
    List all = positional;
    if (vararg) add(all, vararg);
    add(all, keyword_only);
    add(all, keyword_defaults);
    if (kwarg) add(all, kwarg);
    add(all, defaults);
    return wrap(Type::arguments, all);
}

}  // namespace phi_fast::syntax
