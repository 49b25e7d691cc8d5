// Functions, classes, imports, type aliases and type parameters.
#include "syntax/parser.h"

namespace phi_fast::syntax {

void Parser::decorated(List& into) {
    const std::uint32_t line_start = peek().start;
    List decorators;
    while (accept(Tok::at)) {
        add(decorators, named_expression());
        expect(Tok::newline);
    }
    if (is(Tok::kw_class)) {
        add(into, class_definition(decorators));
    } else if (is(Tok::kw_async) && kind(1) == Tok::kw_def) {
        add(into, function(Type::AsyncFunctionDef, decorators, line_start));
    } else if (is(Tok::kw_def)) {
        add(into, function(Type::FunctionDef, decorators, line_start));
    } else {
        throw Fault{};
    }
}

NodeId Parser::function(Type type, List decorators, std::uint32_t line_start) {
    const std::uint32_t start = peek().start;
    accept(Tok::kw_async);
    expect(Tok::kw_def);
    const Token name = expect(Tok::name);
    const auto number = static_cast<std::uint32_t>(tree_->functions.size());
    tree_->functions.push_back({0, start, start, line_start, true});
    open_functions_.push_back(number);
    const std::size_t open = open_functions_.size();
    List type_params, parts;
    NodeId returns = 0;
    try {
        if (is(Tok::lsqb)) type_params = type_parameters();
        expect(Tok::lpar);
        add(parts, parameters(Tok::rpar, true));
        expect(Tok::rpar);
        if (accept(Tok::arrow)) returns = expression();
        block(parts, true);
    } catch (const Fault&) {  // a broken header: no function
        open_functions_.resize(open - 1);
        tree_->functions[number].whole = false;
        throw;
    }
    open_functions_.resize(open - 1);
    add(parts, decorators);
    if (returns) add(parts, returns);
    add(parts, type_params);
    const NodeId node = make(type, name);
    adopt(node, parts);
    // The last token read before the dedents and newline that end the body.
    std::size_t last = at_ ? at_ - 1 : 0;
    while (last > 0 && (tokens_[last].kind == Tok::dedent || tokens_[last].kind == Tok::newline || tokens_[last].kind == Tok::indent)) --last;
    Function& f = tree_->functions[number];
    f.node = node;
    f.stop = tokens_[last].stop;
    return node;
}

NodeId Parser::class_definition(List decorators) {
    expect(Tok::kw_class);
    const Token name = expect(Tok::name);
    List type_params, parts;
    if (is(Tok::lsqb)) type_params = type_parameters();
    if (is(Tok::lpar)) {
        // Bases and keywords are a call's arguments: read as one, with a stand-in for what is called.
        const NodeId stand_in = make(Type::Name);
        call(stand_in);
        List bases;
        bases.first = tree_->nodes[stand_in].next;
        bases.last = bases.first;
        while (bases.last && tree_->nodes[bases.last].next) bases.last = tree_->nodes[bases.last].next;
        parts = bases;
    }
    block(parts, true);
    add(parts, decorators);
    add(parts, type_params);
    const NodeId node = make(Type::ClassDef, name);
    adopt(node, parts);
    return node;
}

NodeId Parser::import_statement() {
    take();
    List names;
    do {
        const Token first = expect(Tok::name);
        std::uint32_t stop = first.stop;
        while (accept(Tok::dot)) stop = expect(Tok::name).stop;
        if (accept(Tok::kw_as)) expect(Tok::name);
        add(names, make(Type::alias, first.start, stop));
    } while (accept(Tok::comma));
    return wrap(Type::Import, names);
}

NodeId Parser::from_statement() {
    take();
    bool dots = false;
    while (accept(Tok::dot) || accept(Tok::ellipsis)) dots = true;
    if (is(Tok::name)) {
        take();
        while (accept(Tok::dot)) expect(Tok::name);
    } else if (!dots) {
        throw Fault{};
    }
    expect(Tok::kw_import);
    List names;
    if (is(Tok::star)) {
        add(names, make(Type::alias, take()));
        return wrap(Type::ImportFrom, names);
    }
    const bool parentheses = accept(Tok::lpar);
    do {
        if (parentheses && is(Tok::rpar)) break;
        const Token name = expect(Tok::name);
        if (accept(Tok::kw_as)) expect(Tok::name);
        add(names, make(Type::alias, name));
    } while (accept(Tok::comma));
    if (parentheses) expect(Tok::rpar);
    if (names.empty()) throw Fault{};
    return wrap(Type::ImportFrom, names);
}

NodeId Parser::type_alias() {
    take();
    List parts;
    add(parts, make(Type::Name, take()));
    if (is(Tok::lsqb)) add(parts, type_parameters());
    expect(Tok::assign);
    add(parts, expression());
    return wrap(Type::TypeAlias, parts);
}

Parser::List Parser::type_parameters() {
    expect(Tok::lsqb);
    List all;
    while (!is(Tok::rsqb)) {
        Type type = Type::TypeVar;
        if (accept(Tok::star)) {
            type = Type::TypeVarTuple;
        } else if (accept(Tok::double_star)) {
            type = Type::ParamSpec;
        }
        const NodeId parameter = make(type, expect(Tok::name));
        List parts;
        if (type == Type::TypeVar && accept(Tok::colon)) add(parts, expression());
        if (accept(Tok::assign)) add(parts, type == Type::TypeVarTuple ? star_expression() : expression());
        adopt(parameter, parts);
        add(all, parameter);
        if (!accept(Tok::comma)) break;
    }
    expect(Tok::rsqb);
    return all;
}

}  // namespace phi_fast::syntax
