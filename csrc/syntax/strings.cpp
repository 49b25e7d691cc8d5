// String literals: neighbours become one Constant, or one JoinedStr when an f-string is among them.
#include "syntax/parser.h"

namespace phi_fast::syntax {
namespace {

constexpr std::size_t npos = std::string_view::npos;

struct Literal {
    std::size_t body, end;
};

Literal body_of(std::string_view source, const Token& t) {
    std::size_t quote = t.start;
    while (source[quote] != '"' && source[quote] != '\'') ++quote;
    const std::size_t width = t.prefix & kTriple ? 3 : 1;
    return {quote + width, t.stop - width};
}

// Does a stretch of a literal give any character? Only escaped line ends give none.
bool gives_text(std::string_view s, bool raw) {
    for (std::size_t i = 0; i < s.size(); ++i) {
        if (raw || s[i] != '\\' || i + 1 == s.size() || (s[i + 1] != '\n' && s[i + 1] != '\r')) return true;
        if (s[i + 1] == '\r' && i + 2 < s.size() && s[i + 2] == '\n') ++i;
        ++i;
    }
    return false;
}

}  // namespace

NodeId Parser::strings() {
    const Token first = peek();
    bool format = false;
    std::size_t count = 0;
    while (kind(count) == Tok::string) format |= (peek(count++).prefix & kFormat) != 0;
    if (!format) {
        Token last = first;
        while (count--) last = take();
        return make(Type::Constant, first.start, last.stop);
    }
    const Deeper deeper(*this);
    Pieces pieces;
    while (count--) {
        const Token t = take();
        const Literal literal = body_of(source_, t);
        if (t.prefix & kFormat) {
            format_pieces(literal.body, literal.end, t.prefix, false, pieces, 0);
        } else if (gives_text(source_.substr(literal.body, literal.end - literal.body), t.prefix & kRaw)) {
            if (!pieces.literal) pieces.start = t.start;
            pieces.literal = true;
            pieces.stop = t.stop;
        }
    }
    flush(pieces);
    return wrap(Type::JoinedStr, pieces.values);
}

void Parser::flush(Pieces& pieces) {
    if (pieces.literal) add(pieces.values, make(Type::Constant, pieces.start, pieces.stop));
    pieces.literal = false;
}

void Parser::format_pieces(std::size_t from, std::size_t to, std::uint8_t prefix, bool spec, Pieces& pieces, int depth) {
    const bool raw = prefix & kRaw;
    const auto literal = [&](std::size_t a, std::size_t b) {
        if (a >= b || !gives_text(source_.substr(a, b - a), raw)) return;
        if (!pieces.literal) pieces.start = static_cast<std::uint32_t>(a);
        pieces.literal = true;
        pieces.stop = static_cast<std::uint32_t>(b);
    };
    std::size_t start = from, p = from;
    while (p < to) {
        const char c = source_[p];
        if (c == '\\' && !raw) {
            if (p + 2 < to && source_[p + 1] == 'N' && source_[p + 2] == '{') {
                while (p < to && source_[p] != '}') ++p;
                if (p < to) ++p;
            } else {
                // A backslash before a brace is itself: the brace still opens a field.
                p += p + 1 < to && (source_[p + 1] == '{' || source_[p + 1] == '}') ? 1 : 2;
            }
        } else if (c == '{') {
            if (!spec && p + 1 < to && source_[p + 1] == '{') {
                p += 2;
                continue;
            }
            literal(start, p);
            p = replacement_field(p, to, prefix, pieces, depth);
            start = p;
        } else if (c == '}') {
            if (spec || p + 1 >= to || source_[p + 1] != '}') throw Fault{};
            p += 2;
        } else {
            ++p;
        }
    }
    literal(start, to);
}

std::size_t Parser::replacement_field(std::size_t at, std::size_t to, std::uint8_t prefix, Pieces& pieces, int depth) {
    const Deeper deeper(*this);
    const std::size_t end = lexer_.field_expression_end(at + 1, to, depth + 1);
    if (end == npos) throw Fault{};

    // The expression's tokens go behind all others and away again.
    const std::size_t kept_at = at_, kept_size = tokens_.size();
    NodeId value;
    lexer_.expression(at + 1, end, tokens_);
    at_ = kept_size;
    try {
        value = is(Tok::kw_yield) ? yield_expression() : star_expressions();
        if (is(Tok::walrus) || !is(Tok::end)) throw Fault{};
    } catch (const Fault&) {
        at_ = kept_at;
        tokens_.resize(kept_size);
        throw;
    }
    at_ = kept_at;
    tokens_.resize(kept_size);

    std::size_t p = end;
    const auto blanks = [&] {
        for (bool comment = false; p < to; ++p) {
            const char c = source_[p];
            if (c == '\n' || c == '\r') {
                comment = false;
            } else if (c == '#') {
                comment = true;
            } else if (!comment && c != ' ' && c != '\t' && c != '\f') {
                break;
            }
        }
    };
    if (source_[p] == '=') {  // f"{x=}" holds the text "x=" as well
        if (!pieces.literal) pieces.start = static_cast<std::uint32_t>(at);
        pieces.literal = true;
        pieces.stop = static_cast<std::uint32_t>(p + 1);
        ++p;
        blanks();
    }
    flush(pieces);
    if (p < to && source_[p] == '!') {
        ++p;
        while (p < to && source_[p] != ':' && source_[p] != '}') ++p;
    }
    NodeId spec = 0;
    if (p < to && source_[p] == ':') {
        const std::size_t from = ++p;
        while (p < to && source_[p] != '}') {
            if (source_[p] == '{') {
                p = lexer_.field_end(p, to, true, at, depth + 1);
                if (p == npos) throw Fault{};
            } else {
                ++p;
            }
        }
        Pieces inner;
        format_pieces(from, p, prefix, true, inner, depth + 1);
        flush(inner);
        spec = wrap(Type::JoinedStr, inner.values);
    }
    if (p >= to || source_[p] != '}') throw Fault{};
    add(pieces.values, wrap(Type::FormattedValue, value, spec));
    return p + 1;
}

}  // namespace phi_fast::syntax
