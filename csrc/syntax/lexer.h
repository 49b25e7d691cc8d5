// Python source to tokens, lines and indentation worked out. Never fails: what is no token becomes an error token, and
// an unclosed bracket or string ends where the next statement plainly begins, so that one slip does not swallow a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace phi_fast::syntax {

enum class Tok : std::uint8_t {
    end, newline, indent, dedent, error, name, number, string,
    // keywords
    kw_false, kw_none, kw_true, kw_and, kw_as, kw_assert, kw_async, kw_await, kw_break, kw_class, kw_continue, kw_def,
    kw_del, kw_elif, kw_else, kw_except, kw_finally, kw_for, kw_from, kw_global, kw_if, kw_import, kw_in, kw_is,
    kw_lambda, kw_nonlocal, kw_not, kw_or, kw_pass, kw_raise, kw_return, kw_try, kw_while, kw_with, kw_yield,
    // punctuation
    lpar, rpar, lsqb, rsqb, lbrace, rbrace, comma, colon, semi, dot, ellipsis, arrow, walrus, assign, backtick,
    plus, minus, star, slash, double_slash, percent, at, double_star, lshift, rshift, vbar, circumflex, amper, tilde,
    eq, ne, lt, le, gt, ge,
    // augmented assignment, in the order of the binary operators above them
    plus_eq, minus_eq, star_eq, slash_eq, double_slash_eq, percent_eq, at_eq, double_star_eq, lshift_eq, rshift_eq,
    vbar_eq, circumflex_eq, amper_eq,
};

struct Token {
    Tok kind;
    std::uint8_t prefix;  // strings: bits of StringPrefix
    std::uint32_t start, stop;  // bytes of the source
};

enum StringPrefix : std::uint8_t { kRaw = 1, kBytes = 2, kFormat = 4, kTriple = 8 };

class Lexer {
public:
    explicit Lexer(std::string_view source) : source_(source) {}

    // The whole source, closed by an end token.
    void file(std::vector<Token>& out);
    // A stretch inside brackets: newlines are blanks, no indentation. Closed by an end token.
    void expression(std::size_t from, std::size_t to, std::vector<Token>& out);

    // Position after the string literal whose prefix starts at `at`, or npos when it is not closed. Its quotes start at
    // `quote`. Replacement fields of f-strings may hold any quotes, as since Python 3.12.
    std::size_t string_end(std::size_t quote, std::uint8_t prefix, std::size_t limit, int depth = 0);
    // In a replacement field from `at`: where its expression ends ('}', ':', '!' or a debugging '=', outside brackets).
    std::size_t field_expression_end(std::size_t at, std::size_t limit, int depth);
    // After the whole replacement field whose '{' is at `at`.
    std::size_t field_end(std::size_t at, std::size_t limit, bool triple, std::size_t quote, int depth);
    // Length of a string prefix with its quote, or 0: fills `prefix`.
    std::size_t string_start(std::size_t at, std::uint8_t& prefix) const;

private:
    void line_start(std::vector<Token>& out);
    bool token(std::vector<Token>& out);
    bool statement_starts(std::size_t at) const;
    void push(std::vector<Token>& out, Tok kind, std::size_t start, std::size_t stop, std::uint8_t prefix = 0);
    void end_line(std::vector<Token>& out);
    bool at_newline(std::size_t at) const { return source_[at] == '\n' || source_[at] == '\r'; }

    std::string_view source_;
    std::size_t at_ = 0, limit_ = 0;
    int brackets_ = 0;
    bool line_has_tokens_ = false;
    std::vector<std::uint32_t> indents_;
    std::size_t no_triple_after_[2] = {SIZE_MAX, SIZE_MAX};  // from here on no closing """ / ''' is left
};

Tok keyword_or_name(std::string_view word);

}  // namespace phi_fast::syntax
