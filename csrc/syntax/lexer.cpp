#include "syntax/lexer.h"

#include <array>
#include <cstring>

namespace phi_fast::syntax {
namespace {

constexpr std::size_t npos = std::string_view::npos;
constexpr int kMaxFieldDepth = 64;  // f-strings nested in f-strings; CPython stops at 150 in all

constexpr std::array<std::uint8_t, 256> make_classes() {
    std::array<std::uint8_t, 256> c{};
    for (int i = 0; i < 256; ++i) {
        const bool alpha = (i >= 'a' && i <= 'z') || (i >= 'A' && i <= 'Z') || i == '_' || i >= 0x80;
        const bool digit = i >= '0' && i <= '9';
        c[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>((alpha ? 1 : 0) | (digit ? 2 : 0));
    }
    return c;
}
constexpr auto kClass = make_classes();

bool name_start(char c) { return kClass[static_cast<std::uint8_t>(c)] & 1; }
bool name_part(char c) { return kClass[static_cast<std::uint8_t>(c)] != 0; }
bool digit(char c) { return c >= '0' && c <= '9'; }

struct Keyword {
    std::string_view word;
    Tok kind;
};
constexpr Keyword kKeywords[] = {
    {"False", Tok::kw_false}, {"None", Tok::kw_none}, {"True", Tok::kw_true}, {"and", Tok::kw_and}, {"as", Tok::kw_as},
    {"assert", Tok::kw_assert}, {"async", Tok::kw_async}, {"await", Tok::kw_await}, {"break", Tok::kw_break},
    {"class", Tok::kw_class}, {"continue", Tok::kw_continue}, {"def", Tok::kw_def}, {"del", Tok::kw_del},
    {"elif", Tok::kw_elif}, {"else", Tok::kw_else}, {"except", Tok::kw_except}, {"finally", Tok::kw_finally},
    {"for", Tok::kw_for}, {"from", Tok::kw_from}, {"global", Tok::kw_global}, {"if", Tok::kw_if},
    {"import", Tok::kw_import}, {"in", Tok::kw_in}, {"is", Tok::kw_is}, {"lambda", Tok::kw_lambda},
    {"nonlocal", Tok::kw_nonlocal}, {"not", Tok::kw_not}, {"or", Tok::kw_or}, {"pass", Tok::kw_pass},
    {"raise", Tok::kw_raise}, {"return", Tok::kw_return}, {"try", Tok::kw_try}, {"while", Tok::kw_while},
    {"with", Tok::kw_with}, {"yield", Tok::kw_yield},
};

// Keywords by first letter and length: at most three share a bucket.
struct KeywordTable {
    std::array<std::array<std::int8_t, 3>, 26 * 9> bucket;
    constexpr KeywordTable() : bucket() {
        for (auto& b : bucket) b = {-1, -1, -1};
        for (std::size_t k = 0; k < std::size(kKeywords); ++k) {
            auto& b = bucket[place(kKeywords[k].word)];
            std::size_t i = 0;
            while (b[i] >= 0) ++i;
            b[i] = static_cast<std::int8_t>(k);
        }
    }
    static constexpr std::size_t place(std::string_view w) {
        return static_cast<std::size_t>((w[0] | 0x20) - 'a') * 9 + w.size();
    }
};
constexpr KeywordTable kTable;

}  // namespace

Tok keyword_or_name(std::string_view word) {
    if (word.size() > 8 || word.size() < 2 || (word[0] | 0x20) < 'a' || (word[0] | 0x20) > 'z') return Tok::name;
    for (const std::int8_t k : kTable.bucket[KeywordTable::place(word)])
        if (k >= 0 && kKeywords[k].word == word) return kKeywords[k].kind;
    return Tok::name;
}

void Lexer::push(std::vector<Token>& out, Tok kind, std::size_t start, std::size_t stop, std::uint8_t prefix) {
    out.push_back({kind, prefix, static_cast<std::uint32_t>(start), static_cast<std::uint32_t>(stop)});
    line_has_tokens_ = true;
}

void Lexer::end_line(std::vector<Token>& out) {
    if (line_has_tokens_) push(out, Tok::newline, at_, at_);
    line_has_tokens_ = false;
}

void Lexer::file(std::vector<Token>& out) {
    out.clear();
    limit_ = source_.size();
    at_ = source_.size() >= 3 && std::memcmp(source_.data(), "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    brackets_ = 0;
    indents_.assign(1, 0);
    line_has_tokens_ = false;
    line_start(out);
    while (token(out)) {
    }
    end_line(out);
    for (; indents_.size() > 1; indents_.pop_back()) push(out, Tok::dedent, at_, at_);
    push(out, Tok::end, at_, at_);
}

void Lexer::expression(std::size_t from, std::size_t to, std::vector<Token>& out) {
    const auto kept = brackets_;
    const std::size_t at = at_, limit = limit_;
    at_ = from;
    limit_ = to;
    brackets_ = 1 << 20;  // newlines stay blanks whatever closes
    while (token(out)) {
    }
    push(out, Tok::end, at_, at_);
    brackets_ = kept;
    at_ = at;
    limit_ = limit;
}

// At the start of a line outside brackets: blank and comment lines are passed over, the others give indent or dedents.
void Lexer::line_start(std::vector<Token>& out) {
    while (at_ < limit_) {
        std::uint32_t column = 0;
        std::size_t p = at_;
        for (; p < limit_; ++p) {
            const char c = source_[p];
            if (c == ' ') {
                ++column;
            } else if (c == '\t') {
                column = (column / 8 + 1) * 8;
            } else if (c == '\f') {
                column = 0;
            } else if (c == '\\' && p + 1 < limit_ && at_newline(p + 1)) {
                // A line of blanks and a backslash goes on below, with this line's indentation.
                p += source_[p + 1] == '\r' && p + 2 < limit_ && source_[p + 2] == '\n' ? 2 : 1;
                std::size_t q = p + 1;
                while (q < limit_ && (source_[q] == ' ' || source_[q] == '\t' || source_[q] == '\f')) ++q;
                p = q - 1;
            } else {
                break;
            }
        }
        if (p == limit_) {
            at_ = p;
            return;
        }
        const bool fence = source_.compare(p, 3, "```") == 0 || source_.compare(p, 3, "~~~") == 0;
        if (source_[p] == '#' || fence) {
            while (p < limit_ && !at_newline(p)) ++p;
        }
        if (p == limit_ || at_newline(p)) {
            at_ = p < limit_ ? p + 1 : p;
            if (p + 1 < limit_ && source_[p] == '\r' && source_[p + 1] == '\n') ++at_;
            continue;
        }
        at_ = p;
        if (column > indents_.back()) {
            indents_.push_back(column);
            push(out, Tok::indent, at_, at_);
        } else {
            while (column < indents_.back()) {
                indents_.pop_back();
                push(out, Tok::dedent, at_, at_);
            }
            // A dedent to no earlier level is an error in Python; here the line joins the block it stands deepest in.
            if (column > indents_.back()) {
                push(out, Tok::error, at_, at_);
                indents_.push_back(column);
                push(out, Tok::newline, at_, at_);
                push(out, Tok::indent, at_, at_);
            }
        }
        return;
    }
}

// Words that begin a statement and cannot stand in an expression.
bool Lexer::statement_starts(std::size_t at) const {
    while (at < limit_ && (source_[at] == ' ' || source_[at] == '\t')) ++at;
    // A decorator goes with the definition below it. (Where the line is an operand of `@`, no `def` follows but in a string.)
    if (at + 1 < limit_ && source_[at] == '@' && name_start(source_[at + 1])) {
        std::size_t next = at;
        for (; next < limit_ && !at_newline(next); ++next)
            if (source_[next] == '"' || source_[next] == '\'' || source_[next] == '\\') return false;
        while (next < limit_ && (at_newline(next) || source_[next] == ' ' || source_[next] == '\t')) ++next;
        std::size_t end = next;
        while (end < limit_ && name_part(source_[end])) ++end;
        const Tok word = end == next || end - next > 8 ? Tok::name : keyword_or_name(source_.substr(next, end - next));
        return word == Tok::kw_def || word == Tok::kw_class;
    }
    std::size_t end = at;
    while (end < limit_ && name_part(source_[end])) ++end;
    if (end == at || end - at > 8) return false;
    switch (keyword_or_name(source_.substr(at, end - at))) {
        case Tok::kw_def: case Tok::kw_class: case Tok::kw_return: case Tok::kw_import: case Tok::kw_raise: case Tok::kw_try:
        case Tok::kw_while: case Tok::kw_with: case Tok::kw_assert: case Tok::kw_del: case Tok::kw_pass: case Tok::kw_break:
        case Tok::kw_continue: case Tok::kw_global: case Tok::kw_nonlocal: case Tok::kw_except: case Tok::kw_finally:
        case Tok::kw_elif: break;
        default: return false;
    }
    // `from x import (a, \n with_)` never gets here: names are whole words. A keyword argument cannot have these names.
    return true;
}

std::size_t Lexer::string_start(std::size_t at, std::uint8_t& prefix) const {
    prefix = 0;
    std::size_t p = at;
    for (; p < limit_ && p - at < 3; ++p) {
        switch (source_[p]) {
            case 'r': case 'R': prefix |= kRaw; continue;
            case 'b': case 'B': prefix |= kBytes; continue;
            case 'f': case 'F': prefix |= kFormat; continue;
            case 'u': case 'U': continue;
            case '"': case '\'':
                if (p + 2 < limit_ && source_[p + 1] == source_[p] && source_[p + 2] == source_[p]) prefix |= kTriple;
                return p - at + 1;
            default: return 0;
        }
    }
    return 0;
}

std::size_t Lexer::string_end(std::size_t quote, std::uint8_t prefix, std::size_t limit, int depth) {
    const char q = source_[quote];
    const bool triple = prefix & kTriple, format = prefix & kFormat;
    const int kind = q == '"' ? 0 : 1;
    if (triple && quote >= no_triple_after_[kind]) return npos;
    std::size_t p = quote + (triple ? 3 : 1);
    while (p < limit) {
        const char c = source_[p];
        if (c == '\\') {
            if (format && !(prefix & kRaw) && p + 2 < limit && source_[p + 1] == 'N' && source_[p + 2] == '{') {
                while (p < limit && source_[p] != '}' && source_[p] != q && !at_newline(p)) ++p;
                continue;
            }
            if (format && p + 1 < limit && (source_[p + 1] == '{' || source_[p + 1] == '}')) {
                ++p;  // the brace still opens or closes a field
                continue;
            }
            p += p + 2 < limit && source_[p + 1] == '\r' && source_[p + 2] == '\n' ? 3 : 2;
            continue;
        }
        if (c == q) {
            if (!triple) return p + 1;
            if (p + 2 < limit && source_[p + 1] == q && source_[p + 2] == q) return p + 3;
        } else if (!triple && (c == '\n' || c == '\r')) {
            return npos;
        } else if (format && c == '{') {
            if (p + 1 < limit && source_[p + 1] == '{') {
                p += 2;
                continue;
            }
            const std::size_t after = field_end(p, limit, triple, quote, depth);
            if (after == npos) return npos;
            p = after;
            continue;
        }
        ++p;
    }
    if (triple && limit == source_.size() && !format) no_triple_after_[kind] = quote;
    return npos;
}

std::size_t Lexer::field_expression_end(std::size_t at, std::size_t limit, int depth) {
    int brackets = 0;
    for (std::size_t p = at; p < limit;) {
        const char c = source_[p];
        if (c == '"' || c == '\'' || name_start(c)) {
            if (name_start(c) && !(c == 'r' || c == 'R' || c == 'b' || c == 'B' || c == 'f' || c == 'F' || c == 'u' || c == 'U')) {
                while (p < limit && name_part(source_[p])) ++p;
                continue;
            }
            std::uint8_t prefix = 0;
            const std::size_t kept = limit_;
            limit_ = limit;
            const std::size_t length = string_start(p, prefix);
            limit_ = kept;
            if (length) {
                if (depth >= kMaxFieldDepth) return npos;
                p = string_end(p + length - 1, prefix, limit, depth + 1);
                if (p == npos) return npos;
            } else {
                while (p < limit && name_part(source_[p])) ++p;
            }
            continue;
        }
        switch (c) {
            case '(': case '[': case '{': ++brackets; break;
            case ')': case ']':
                if (brackets == 0) return npos;
                --brackets;
                break;
            case '}':
                if (brackets == 0) return p;
                --brackets;
                break;
            case ':':
                if (brackets == 0) return p;
                break;
            case '!':
                if (brackets == 0 && !(p + 1 < limit && source_[p + 1] == '=')) return p;
                if (brackets == 0) ++p;
                break;
            case '=':
                if (brackets == 0) {
                    if (p + 1 < limit && source_[p + 1] == '=') {
                        ++p;
                    } else if (p == at || (source_[p - 1] != '<' && source_[p - 1] != '>')) {
                        return p;
                    }
                }
                break;
            case '#':
                while (p < limit && !at_newline(p)) ++p;
                continue;
            default: break;
        }
        ++p;
    }
    return npos;
}

std::size_t Lexer::field_end(std::size_t at, std::size_t limit, bool triple, std::size_t quote, int depth) {
    if (depth >= kMaxFieldDepth) return npos;
    std::size_t p = field_expression_end(at + 1, limit, depth + 1);
    if (p == npos) return npos;
    if (source_[p] == '=') {
        ++p;
        while (p < limit && (source_[p] == ' ' || source_[p] == '\t' || source_[p] == '\f' || source_[p] == '#' || at_newline(p))) {
            if (source_[p] == '#') {
                while (p < limit && !at_newline(p)) ++p;
            } else {
                ++p;
            }
        }
    }
    if (p < limit && source_[p] == '!') {
        ++p;
        while (p < limit && source_[p] != ':' && source_[p] != '}' && (name_part(source_[p]) || source_[p] == ' ')) ++p;
    }
    if (p < limit && source_[p] == ':') {
        for (++p; p < limit && source_[p] != '}';) {
            if (source_[p] == '{') {
                p = field_end(p, limit, triple, quote, depth + 1);
                if (p == npos) return npos;
                continue;
            }
            if (source_[p] == source_[quote] &&
                (!triple || (p + 2 < limit && source_[p + 1] == source_[quote] && source_[p + 2] == source_[quote])))
                return npos;
            if (!triple && at_newline(p)) return npos;
            ++p;
        }
    }
    return p < limit && source_[p] == '}' ? p + 1 : npos;
}

// One token from at_; false at the end.
bool Lexer::token(std::vector<Token>& out) {
    while (at_ < limit_) {
        const char c = source_[at_];
        const std::size_t start = at_;
        switch (c) {
            case ' ': case '\t': case '\f': ++at_; continue;
            case '\\':
                if (at_ + 1 < limit_ && at_newline(at_ + 1)) {
                    at_ += source_[at_ + 1] == '\r' && at_ + 2 < limit_ && source_[at_ + 2] == '\n' ? 3 : 2;
                    continue;
                }
                ++at_;
                push(out, Tok::error, start, at_);
                return true;
            case '#':
                while (at_ < limit_ && !at_newline(at_)) ++at_;
                continue;
            case '\r': case '\n': {
                std::size_t next = at_ + 1;
                if (c == '\r' && next < limit_ && source_[next] == '\n') ++next;
                if (brackets_ > 0) {
                    if (brackets_ < (1 << 19) && statement_starts(next)) {
                        push(out, Tok::error, at_, at_);  // a bracket was never closed
                        brackets_ = 0;
                    } else {
                        at_ = next;
                        continue;
                    }
                }
                end_line(out);
                at_ = next;
                line_start(out);
                return true;
            }
            default: break;
        }
        if (name_start(c) || c == '"' || c == '\'') {
            std::uint8_t prefix = 0;
            std::size_t opening = 0;  // length of prefix and quote
            switch (c) {
                case '"': case '\'': case 'r': case 'R': case 'b': case 'B': case 'f': case 'F': case 'u': case 'U':
                    opening = string_start(at_, prefix);
                    break;
                default: break;
            }
            if (opening) {
                const std::size_t end = string_end(at_ + opening - 1, prefix, limit_);
                if (end == npos) {
                    while (at_ < limit_ && !at_newline(at_)) ++at_;
                    push(out, Tok::error, start, at_);
                } else {
                    at_ = end;
                    push(out, Tok::string, start, at_, prefix);
                }
                return true;
            }
            while (++at_ < limit_ && name_part(source_[at_])) {
            }
            push(out, keyword_or_name(source_.substr(start, at_ - start)), start, at_);
            return true;
        }
        if (digit(c) || (c == '.' && at_ + 1 < limit_ && digit(source_[at_ + 1]))) {
            if (c == '0' && at_ + 1 < limit_ && (source_[at_ + 1] | 0x20) >= 'a' && std::strchr("xob", source_[at_ + 1] | 0x20)) {
                const bool hex = (source_[at_ + 1] | 0x20) == 'x';
                at_ += 2;
                const auto part = [&](char d) {
                    return digit(d) || d == '_' || (hex && (d | 0x20) >= 'a' && (d | 0x20) <= 'f');
                };
                while (at_ < limit_ && part(source_[at_])) ++at_;
            } else {
                const auto digits = [&] {
                    while (at_ < limit_ && (digit(source_[at_]) || (source_[at_] == '_' && at_ + 1 < limit_ && digit(source_[at_ + 1])))) ++at_;
                };
                digits();
                if (at_ < limit_ && source_[at_] == '.') {
                    ++at_;
                    digits();
                }
                if (at_ < limit_ && (source_[at_] | 0x20) == 'e') {
                    std::size_t p = at_ + 1;
                    if (p < limit_ && (source_[p] == '+' || source_[p] == '-')) ++p;
                    if (p < limit_ && digit(source_[p])) {
                        at_ = p;
                        digits();
                    }
                }
                if (at_ < limit_ && (source_[at_] | 0x20) == 'j') ++at_;
            }
            if (at_ < limit_ && (source_[at_] | 0x20) == 'l' && !(at_ + 1 < limit_ && name_part(source_[at_ + 1]))) ++at_;  // Python 2
            push(out, Tok::number, start, at_);
            return true;
        }
        const auto follows = [&](std::size_t k, char x) { return at_ + k < limit_ && source_[at_ + k] == x; };
        const auto op = [&](Tok kind, std::size_t length) {
            at_ += length;
            push(out, kind, start, at_);
            return true;
        };
        switch (c) {
            case '(': ++brackets_; return op(Tok::lpar, 1);
            case '[': ++brackets_; return op(Tok::lsqb, 1);
            case '{': ++brackets_; return op(Tok::lbrace, 1);
            case ')': brackets_ -= brackets_ > 0; return op(Tok::rpar, 1);
            case ']': brackets_ -= brackets_ > 0; return op(Tok::rsqb, 1);
            case '}': brackets_ -= brackets_ > 0; return op(Tok::rbrace, 1);
            case ',': return op(Tok::comma, 1);
            case ';': return op(Tok::semi, 1);
            case '`': return op(Tok::backtick, 1);
            case '~': return op(Tok::tilde, 1);
            case ':': return follows(1, '=') ? op(Tok::walrus, 2) : op(Tok::colon, 1);
            case '.': return follows(1, '.') && follows(2, '.') ? op(Tok::ellipsis, 3) : op(Tok::dot, 1);
            case '+': return follows(1, '=') ? op(Tok::plus_eq, 2) : op(Tok::plus, 1);
            case '-':
                if (follows(1, '>')) return op(Tok::arrow, 2);
                return follows(1, '=') ? op(Tok::minus_eq, 2) : op(Tok::minus, 1);
            case '*':
                if (follows(1, '*')) return follows(2, '=') ? op(Tok::double_star_eq, 3) : op(Tok::double_star, 2);
                return follows(1, '=') ? op(Tok::star_eq, 2) : op(Tok::star, 1);
            case '/':
                if (follows(1, '/')) return follows(2, '=') ? op(Tok::double_slash_eq, 3) : op(Tok::double_slash, 2);
                return follows(1, '=') ? op(Tok::slash_eq, 2) : op(Tok::slash, 1);
            case '%': return follows(1, '=') ? op(Tok::percent_eq, 2) : op(Tok::percent, 1);
            case '@': return follows(1, '=') ? op(Tok::at_eq, 2) : op(Tok::at, 1);
            case '|': return follows(1, '=') ? op(Tok::vbar_eq, 2) : op(Tok::vbar, 1);
            case '^': return follows(1, '=') ? op(Tok::circumflex_eq, 2) : op(Tok::circumflex, 1);
            case '&': return follows(1, '=') ? op(Tok::amper_eq, 2) : op(Tok::amper, 1);
            case '=': return follows(1, '=') ? op(Tok::eq, 2) : op(Tok::assign, 1);
            case '!': return follows(1, '=') ? op(Tok::ne, 2) : op(Tok::error, 1);
            case '<':
                if (follows(1, '<')) return follows(2, '=') ? op(Tok::lshift_eq, 3) : op(Tok::lshift, 2);
                if (follows(1, '>')) return op(Tok::ne, 2);  // Python 2
                return follows(1, '=') ? op(Tok::le, 2) : op(Tok::lt, 1);
            case '>':
                if (follows(1, '>')) return follows(2, '=') ? op(Tok::rshift_eq, 3) : op(Tok::rshift, 2);
                return follows(1, '=') ? op(Tok::ge, 2) : op(Tok::gt, 1);
            default: return op(Tok::error, 1);
        }
    }
    return false;
}

}  // namespace phi_fast::syntax
