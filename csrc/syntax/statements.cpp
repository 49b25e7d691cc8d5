// Lines of statements, blocks, docstrings and recovery from errors.
#include "syntax/parser.h"

namespace phi_fast::syntax {

// Statements up to the dedent that closes the block (taken), or to the end.
void Parser::statements(List& into, bool top) {
    while (!is(Tok::end)) {
        if (is(Tok::dedent)) {
            if (!top) {
                take();
                return;
            }
            take();
            continue;
        }
        const std::size_t began = at_;
        try {
            statement(into);
        } catch (const Fault&) {
            recover(into, began);
        }
    }
}

// After an error in the statement that began at a token: the rest of the line is passed over; the block below it, if any,
// is read as if it stood here.
void Parser::recover(List& into, std::size_t began) {
    ++tree_->errors;
    for (const std::uint32_t f : open_functions_) tree_->functions[f].whole = false;
    // A header without its block, a decorator without its definition: the line found instead is a statement of its own.
    if (at_ > began && tokens_[at_ - 1].kind == Tok::newline && !is(Tok::indent)) return;
    const std::size_t before = at_;
    while (!is(Tok::newline) && !is(Tok::end) && !is(Tok::indent) && !is(Tok::dedent)) take();
    accept(Tok::newline);
    if (is(Tok::indent)) {
        take();
        if (depth_ < kMaxNesting) {
            ++depth_;
            statements(into, false);
            --depth_;
        }
    } else if (at_ == before && !is(Tok::end)) {
        take();
    }
}

void Parser::statement(List& into) {
    const Deeper deeper(*this);
    const Token first = peek();
    const NodeId before = into.last;
    any_statement(into);
    const NodeId made = before ? tree_->nodes[before].next : into.first;
    if (!made || tree_->nodes[made].stop) return;
    tree_->nodes[made].start = first.start;
    tree_->nodes[made].stop = first.stop;
}

void Parser::any_statement(List& into) {
    switch (kind()) {
        case Tok::kw_if: add(into, if_statement()); return;
        case Tok::kw_for: take(); add(into, loop(Type::For)); return;
        case Tok::kw_while: take(); add(into, loop(Type::While)); return;
        case Tok::kw_with: take(); add(into, with_statement(Type::With)); return;
        case Tok::kw_try: add(into, try_statement()); return;
        case Tok::kw_def: add(into, function(Type::FunctionDef, {}, peek().start)); return;
        case Tok::kw_class: add(into, class_definition({})); return;
        case Tok::at: decorated(into); return;
        case Tok::kw_async:
            switch (kind(1)) {
                case Tok::kw_def: add(into, function(Type::AsyncFunctionDef, {}, peek().start)); return;
                case Tok::kw_for: take(); take(); add(into, loop(Type::AsyncFor)); return;
                case Tok::kw_with: take(); take(); add(into, with_statement(Type::AsyncWith)); return;
                default: throw Fault{};
            }
        case Tok::name:
            if (is_word("match") && match_ahead()) {
                add(into, match_statement());
                return;
            }
            break;
        case Tok::newline: take(); return;
        default: break;
    }
    List line;
    while (true) {
        simple_statement(line);
        if (!accept(Tok::semi)) break;
        if (is(Tok::newline) || is(Tok::end)) break;
    }
    if (!is(Tok::end) && !is(Tok::dedent)) expect(Tok::newline);
    add(into, line);
}

void Parser::simple_statement(List& into) {
    switch (kind()) {
        case Tok::kw_pass: take(); add(into, make(Type::Pass)); return;
        case Tok::kw_break: take(); add(into, make(Type::Break)); return;
        case Tok::kw_continue: take(); add(into, make(Type::Continue)); return;
        case Tok::kw_return:
            take();
            add(into, wrap(Type::Return, expression_starts() ? star_expressions() : 0));
            return;
        case Tok::kw_raise: {
            take();
            if (!expression_starts()) {
                add(into, make(Type::Raise));
                return;
            }
            const NodeId error = expression();
            NodeId cause = 0;
            if (accept(Tok::kw_from)) {
                cause = expression();
            } else if (is(Tok::comma)) {  // Python 2: raise E, value, traceback
                List call;
                add(call, error);
                while (accept(Tok::comma)) add(call, expression());
                add(into, wrap(Type::Raise, wrap(Type::Call, call)));
                return;
            }
            add(into, wrap(Type::Raise, error, cause));
            return;
        }
        case Tok::kw_global: case Tok::kw_nonlocal: {
            const Type type = take().kind == Tok::kw_global ? Type::Global : Type::Nonlocal;
            expect(Tok::name);
            while (accept(Tok::comma)) expect(Tok::name);
            add(into, make(type));
            return;
        }
        case Tok::kw_del: {
            take();
            List targets;
            do {
                if (!expression_starts()) break;
                add(targets, binary(0));
            } while (accept(Tok::comma));
            if (targets.empty()) throw Fault{};
            add(into, wrap(Type::Delete, targets));
            return;
        }
        case Tok::kw_assert: {
            take();
            const NodeId test = expression();
            add(into, wrap(Type::Assert, test, accept(Tok::comma) ? expression() : 0));
            return;
        }
        case Tok::kw_import: add(into, import_statement()); return;
        case Tok::kw_from: add(into, from_statement()); return;
        case Tok::name:
            if (is_word("type") && kind(1) == Tok::name && (kind(2) == Tok::assign || kind(2) == Tok::lsqb)) {
                add(into, type_alias());
                return;
            }
            if (is_word("print") || is_word("exec")) {
                switch (kind(1)) {
                    case Tok::name: case Tok::number: case Tok::string: case Tok::backtick: case Tok::kw_lambda: case Tok::kw_none:
                    case Tok::kw_true: case Tok::kw_false:
                        add(into, python2_print());
                        return;
                    case Tok::kw_not:
                        if (kind(2) != Tok::kw_in) {
                            add(into, python2_print());
                            return;
                        }
                        break;
                    default: break;
                }
            }
            break;
        default: break;
    }
    expression_statement(into);
}

// print "a", b   exec code in names   as a call of the same name.
NodeId Parser::python2_print() {
    List call;
    const bool exec = is_word("exec");
    add(call, make(Type::Name, take()));
    if (exec) {
        add(call, binary(0));
        if (accept(Tok::kw_in)) add(call, expression());
    } else {
        add(call, expression());
    }
    while (accept(Tok::comma) && expression_starts()) add(call, expression());
    return wrap(Type::Expr, wrap(Type::Call, call));
}

void Parser::expression_statement(List& into) {
    const NodeId first = yield_or_stars();
    switch (kind()) {
        case Tok::assign: {
            List all;
            add(all, first);
            while (accept(Tok::assign)) add(all, yield_or_stars());
            add(into, wrap(Type::Assign, all));
            return;
        }
        case Tok::colon: {
            const Type type = tree_->nodes[first].type;
            if (type != Type::Name && type != Type::Attribute && type != Type::Subscript) throw Fault{};
            take();
            const NodeId annotation = expression();
            add(into, wrap(Type::AnnAssign, first, annotation, accept(Tok::assign) ? yield_or_stars() : 0));
            return;
        }
        default: break;
    }
    if (kind() >= Tok::plus_eq && kind() <= Tok::amper_eq) {
        static constexpr Type kOperators[] = {Type::Add, Type::Sub, Type::Mult, Type::Div, Type::FloorDiv, Type::Mod, Type::MatMult,
                                              Type::Pow, Type::LShift, Type::RShift, Type::BitOr, Type::BitXor, Type::BitAnd};
        const NodeId op = leaf(kOperators[static_cast<int>(take().kind) - static_cast<int>(Tok::plus_eq)]);
        add(into, wrap(Type::AugAssign, first, op, yield_or_stars()));
        return;
    }
    add(into, wrap(Type::Expr, first));
}

void Parser::block(List& into, bool docstring) {
    expect(Tok::colon);
    List body;
    if (accept(Tok::newline)) {
        expect(Tok::indent);
        statements(body, false);
    } else {
        while (true) {
            simple_statement(body);
            if (!accept(Tok::semi)) break;
            if (is(Tok::newline) || is(Tok::end)) break;
        }
        if (!is(Tok::end)) expect(Tok::newline);
    }
    if (docstring) drop_docstring(body);
    add(into, body);
}

// A docstring is the first statement, when that is a plain string (no bytes, no f-string).
void Parser::drop_docstring(List& body) const {
    if (body.empty()) return;
    const Node& statement = tree_->nodes[body.first];
    if (statement.type != Type::Expr) return;
    const Node& value = tree_->nodes[statement.child];
    if (value.type != Type::Constant || value.stop <= value.start) return;
    std::uint32_t p = value.start;
    while (p < value.stop && (source_[p] == 'r' || source_[p] == 'R' || source_[p] == 'u' || source_[p] == 'U')) ++p;
    if (source_[p] != '"' && source_[p] != '\'') return;
    body.first = statement.next;
    if (!body.first) body.last = 0;
}

}  // namespace phi_fast::syntax
