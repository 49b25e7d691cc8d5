#include "syntax/sequence.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstring>
#include <string>
#include <system_error>

namespace phi_fast::syntax {
namespace {

// builtins of Python 3.11 and the names Python 2 had besides; sorted, for binary search.
constexpr std::string_view kBuiltins[] = {
    "ArithmeticError", "AssertionError", "AttributeError", "BaseException", "EOFError", "Ellipsis", "Exception", "False",
    "FileNotFoundError", "ImportError", "IndexError", "IOError", "KeyError", "KeyboardInterrupt", "LookupError", "MemoryError",
    "NameError", "None", "NotImplemented", "NotImplementedError", "OSError", "OverflowError", "RecursionError", "RuntimeError",
    "StopIteration", "SyntaxError", "SystemExit", "True", "TypeError", "UnicodeDecodeError", "UnicodeError", "ValueError",
    "ZeroDivisionError", "__file__", "__import__", "__name__", "abs", "all", "any", "ascii", "basestring", "bin", "bool",
    "breakpoint", "bytearray", "bytes", "callable", "chr", "classmethod", "cls", "cmp", "compile", "complex", "delattr", "dict",
    "dir", "divmod", "enumerate", "eval", "exec", "exit", "filter", "float", "format", "frozenset", "getattr", "globals",
    "hasattr", "hash", "help", "hex", "id", "input", "int", "isinstance", "issubclass", "iter", "len", "list", "locals", "long",
    "map", "max", "memoryview", "min", "next", "object", "oct", "open", "ord", "pow", "print", "property", "quit", "range",
    "raw_input", "reduce", "repr", "reversed", "round", "self", "set", "setattr", "slice", "sorted", "staticmethod", "str",
    "sum", "super", "tuple", "type", "unichr", "unicode", "vars", "xrange", "zip",
};

bool is_builtin(std::string_view name) {
    static const auto sorted = [] {
        std::array<std::string_view, std::size(kBuiltins)> a;
        std::copy(std::begin(kBuiltins), std::end(kBuiltins), a.begin());
        std::sort(a.begin(), a.end());
        return a;
    }();
    return std::binary_search(sorted.begin(), sorted.end(), name);
}

std::uint32_t hash_text(std::string_view text, std::uint32_t seed) {
    std::uint64_t h = 0xcbf29ce484222325ull ^ seed;
    for (const char c : text) h = (h ^ static_cast<std::uint8_t>(c)) * 0x100000001b3ull;
    return static_cast<std::uint32_t>(h ^ (h >> 32));
}

// Reads a string literal's escapes. What begins at `p` (after the backslash) is appended as the UTF-8 it stands for.
const char* append_escape(const char* p, const char* end, std::string& out) {
    const auto number = [&](int base, int most) {
        std::uint32_t value = 0;
        const char* stop = p + std::min<std::ptrdiff_t>(most, end - p);
        const auto read = std::from_chars(p, stop, value, base);
        if (read.ptr == p) {
            out.push_back('\\');
            return p;
        }
        if (value < 0x80) {
            out.push_back(static_cast<char>(value));
        } else if (value < 0x800) {
            out.push_back(static_cast<char>(0xC0 | value >> 6));
            out.push_back(static_cast<char>(0x80 | (value & 0x3F)));
        } else {
            if (value >= 0x10000) out.push_back(static_cast<char>(0xF0 | (value >> 18 & 7)));
            out.push_back(static_cast<char>((value >= 0x10000 ? 0x80 : 0xE0) | (value >> 12 & (value >= 0x10000 ? 0x3F : 0x0F))));
            out.push_back(static_cast<char>(0x80 | (value >> 6 & 0x3F)));
            out.push_back(static_cast<char>(0x80 | (value & 0x3F)));
        }
        return read.ptr;
    };
    const char c = *p;
    if (c >= '0' && c <= '7') return number(8, 3);
    ++p;
    switch (c) {
        case '\n': return p;
        case '\r': return p < end && *p == '\n' ? p + 1 : p;
        case '\\': case '\'': case '"': out.push_back(c); return p;
        case 'a': out.push_back('\a'); return p;
        case 'b': out.push_back('\b'); return p;
        case 'f': out.push_back('\f'); return p;
        case 'n': out.push_back('\n'); return p;
        case 'r': out.push_back('\r'); return p;
        case 't': out.push_back('\t'); return p;
        case 'v': out.push_back('\v'); return p;
        case 'x': return number(16, 2);
        case 'u': return number(16, 4);
        case 'U': return number(16, 8);
        default: out.push_back('\\'); out.push_back(c); return p;
    }
}

// String literals by their value, neighbours joined, so that 'a\n', "a\x0a" and "a" "\n" are the same. What has no quotes is a
// piece of an f-string, or a word such as None.
std::uint32_t hash_literal(std::string_view text, std::uint32_t seed) {
    thread_local std::string value;
    value.clear();
    const char* p = text.data();
    const char* const end = p + text.size();
    const auto copy = [&](const char* from, const char* to, bool raw) {
        while (from < to) {
            if (*from == '\\' && !raw && from + 1 < to) {
                from = append_escape(from + 1, to, value);
            } else if (*from == '\r') {  // line ends are \n, as in the values that Python gives
                value.push_back('\n');
                from += from + 1 < to && from[1] == '\n' ? 2 : 1;
            } else {
                value.push_back(*from++);
            }
        }
    };
    bool quoted = false;
    while (p < end) {
        const char* q = p;
        bool raw = false;
        while (q < end && q - p < 3 && *q != '"' && *q != '\'') raw |= (*q++ | 0x20) == 'r';
        if (q == end || (*q != '"' && *q != '\'')) {
            if (!quoted) copy(p, end, false);
            break;
        }
        const char quote = *q;
        const std::ptrdiff_t width = end - q >= 6 && q[1] == quote && q[2] == quote ? 3 : 1;
        const char* const from = q += width;
        const auto closes = [&](const char* at) {
            return *at == quote && (width == 1 || (end - at >= 3 && at[1] == quote && at[2] == quote));
        };
        while (q < end && !closes(q)) q += *q == '\\' && q + 1 < end ? 2 : 1;
        copy(from, std::min(q, end), raw);
        quoted = true;
        p = std::min(q + width, end);
        while (p < end) {  // blanks, line ends and comments up to the next literal
            if (*p == '#') {
                while (p < end && *p != '\n' && *p != '\r') ++p;
            } else if (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r' || *p == '\f' || *p == '\\') {
                ++p;
            } else {
                break;
            }
        }
    }
    return hash_text(value, seed);
}

// A number by its value, so that 1. and 1.0, 0x10 and 16 are the same; anything longer than a machine number by its text.
std::uint32_t hash_number(std::string_view text, std::uint32_t seed) {
    char digits[64];
    std::size_t n = 0;
    for (const char c : text) {
        if (c == '_') continue;
        if (n + 1 == sizeof digits) return hash_text(text, seed);
        digits[n++] = c;
    }
    digits[n] = 0;
    const bool prefixed = n > 1 && digits[0] == '0' && (digits[1] | 0x20) >= 'a';
    const char* end = digits + n;
    std::uint64_t bits = 0;
    if (prefixed) {
        const int base = (digits[1] | 0x20) == 'x' ? 16 : (digits[1] | 0x20) == 'o' ? 8 : 2;
        if (std::from_chars(digits + 2, end, bits, base).ptr != end) return hash_text(text, seed);
    } else if (std::from_chars(digits, end, bits, 10).ptr != end) {
        double value = 0;
        const auto read = std::from_chars(digits, end, value);
        if (read.ec != std::errc() || (read.ptr != end && read.ptr + 1 != end)) return hash_text(text, seed);
        bits = std::bit_cast<std::uint64_t>(value);
        if (read.ptr != end) seed += 0x10000;  // an imaginary one, or Python 2's long
    }
    return hash_text({reinterpret_cast<const char*>(&bits), sizeof bits}, seed);
}

bool statement(Type t) { return t >= Type::FunctionDef && t <= Type::Continue; }

}  // namespace

void preorder(const Tree& tree, Sequences& out) {
    out.types.clear();
    out.sizes.clear();
    out.nodes.clear();
    out.functions.clear();
    // Depth first by child and next; `open` holds the places of the ancestors.
    std::vector<std::uint32_t> open;
    NodeId node = tree.module;
    while (true) {
        open.push_back(static_cast<std::uint32_t>(out.types.size()));
        out.types.push_back(static_cast<std::uint8_t>(tree.nodes[node].type));
        out.nodes.push_back(node);
        out.sizes.push_back(0);
        if (tree.nodes[node].child) {
            node = tree.nodes[node].child;
            continue;
        }
        while (!open.empty()) {
            const std::uint32_t at = open.back();
            open.pop_back();
            out.sizes[at] = static_cast<std::uint32_t>(out.types.size()) - at;
            const NodeId next = tree.nodes[out.nodes[at]].next;
            if (next && !open.empty()) {
                node = next;
                break;
            }
        }
        if (open.empty()) break;
    }
    if (tree.functions.empty()) return;
    // Node ids of definitions to their places.
    std::vector<std::pair<NodeId, std::uint32_t>> places;
    for (std::uint32_t i = 0; i < out.types.size(); ++i) {
        const auto t = static_cast<Type>(out.types[i]);
        if (t == Type::FunctionDef || t == Type::AsyncFunctionDef) places.emplace_back(out.nodes[i], i);
    }
    std::sort(places.begin(), places.end());
    for (const Function& f : tree.functions) {
        if (!f.node) continue;
        const auto found = std::lower_bound(places.begin(), places.end(), std::pair<NodeId, std::uint32_t>(f.node, 0));
        if (found == places.end() || found->first != f.node) continue;  // left behind by a statement that did not parse
        const std::uint32_t first = found->second, stop = first + out.sizes[first];
        // Children: arguments, the body's statements, then decorators, return annotation and type parameters.
        std::uint32_t child = first + 1;
        if (child < stop) child += out.sizes[child];
        const std::uint32_t body = child;
        while (child < stop && statement(static_cast<Type>(out.types[child]))) child += out.sizes[child];
        out.functions.push_back({first, stop - first, body, child - body, f.start, f.stop, f.whole ? 1u : 0u});
    }
}

namespace {

std::string_view text_of(std::string_view source, const Tree& tree, const Sequences& s, std::uint32_t at) {
    const Node& node = tree.nodes[s.nodes[at]];
    return source.substr(node.start, node.stop - node.start);
}

}  // namespace

// Names that are assigned to: the targets of `at`, through tuples, lists and stars.
void AlphaForm::add_target(std::string_view source, const Tree& tree, const Sequences& s, std::uint32_t at) {
    const std::uint32_t stop = at + s.sizes[at];
    switch (static_cast<Type>(s.types[at])) {
        case Type::Name: own_.push_back(text_of(source, tree, s, at)); return;
        case Type::Tuple:
        case Type::List:
        case Type::Starred:
            for (std::uint32_t child = at + 1; child < stop; child += s.sizes[child]) add_target(source, tree, s, child);
            return;
        default: return;
    }
}

void AlphaForm::find_own(std::string_view source, const Tree& tree, const Sequences& s, std::uint32_t scope, std::uint32_t first,
                         std::uint32_t count) {
    own_.clear();
    for (std::uint32_t i = scope; i < first; ++i)
        if (i == scope || static_cast<Type>(s.types[i]) == Type::arg) own_.push_back(text_of(source, tree, s, i));
    for (std::uint32_t i = first; i < first + count; ++i) {
        const std::uint32_t stop = i + s.sizes[i], child = i + 1;
        switch (static_cast<Type>(s.types[i])) {
            case Type::arg:
            case Type::FunctionDef:
            case Type::AsyncFunctionDef:
            case Type::ClassDef: own_.push_back(text_of(source, tree, s, i)); break;
            case Type::Assign:  // targets, then the value
                for (std::uint32_t at = child; at + s.sizes[at] < stop; at += s.sizes[at]) add_target(source, tree, s, at);
                break;
            case Type::AugAssign:
            case Type::AnnAssign:
            case Type::TypeAlias:
            case Type::NamedExpr:
            case Type::For:
            case Type::AsyncFor:
            case Type::comprehension:
                if (child < stop) add_target(source, tree, s, child);
                break;
            case Type::withitem:
                if (child < stop && child + s.sizes[child] < stop) add_target(source, tree, s, child + s.sizes[child]);
                break;
            default: break;
        }
    }
}

void AlphaForm::make(std::string_view source, const Tree& tree, const Sequences& s, std::uint32_t scope, std::uint32_t first,
                     std::uint32_t count, std::vector<std::uint32_t>& out) {
    if (names_.empty()) names_.resize(256);
    for (const std::uint32_t slot : used_) names_[slot] = {};
    used_.clear();
    const auto number = [&](std::string_view name) {
        if (used_.size() * 2 > names_.size()) {
            std::vector<Numbered> grown(names_.size() * 2);
            std::vector<std::uint32_t> moved;
            for (const std::uint32_t slot : used_) {
                std::size_t at = hash_text(names_[slot].name, 1) & (grown.size() - 1);
                while (!grown[at].name.empty()) at = (at + 1) & (grown.size() - 1);
                grown[at] = names_[slot];
                moved.push_back(static_cast<std::uint32_t>(at));
            }
            names_ = std::move(grown);
            used_ = std::move(moved);
        }
        std::size_t at = hash_text(name, 1) & (names_.size() - 1);
        while (!names_[at].name.empty() && names_[at].name != name) at = (at + 1) & (names_.size() - 1);
        if (names_[at].name.empty()) {
            names_[at] = {name, static_cast<std::uint32_t>(used_.size())};
            used_.push_back(static_cast<std::uint32_t>(at));
        }
        return names_[at].number;
    };
    out.clear();
    find_own(source, tree, s, scope, first, count);
    const auto kept = [&](std::string_view name) {
        return is_builtin(name) && std::find(own_.begin(), own_.end(), name) == own_.end();
    };
    for (std::uint32_t i = first; i < first + count; ++i) {
        const Node& node = tree.nodes[s.nodes[i]];
        const auto type = static_cast<std::uint32_t>(node.type);
        const std::string_view text = text_of(source, tree, s, i);
        switch (node.type) {
            case Type::Name:
            case Type::arg:
            case Type::FunctionDef:
            case Type::AsyncFunctionDef:
            case Type::ClassDef:
            case Type::MatchAs:
                if (text.empty()) {
                    out.push_back(type);
                } else if (kept(text)) {
                    out.push_back(hash_text(text, type << 8 | 1));
                } else {
                    out.push_back((type << 16 | (number(text) & 0xffff)) * 0x9E3779B1u);
                }
                break;
            case Type::Attribute:
            case Type::keyword:
            case Type::alias: out.push_back(hash_text(text, type << 8 | 2)); break;
            case Type::Constant:
                if (!text.empty() && ((text[0] >= '0' && text[0] <= '9') || (text[0] == '.' && text != "..."))) {
                    out.push_back(hash_number(text, type << 8 | 4));
                } else {
                    out.push_back(hash_literal(text, type << 8 | 3));
                }
                break;
            default: out.push_back(type); break;
        }
    }
}

}  // namespace phi_fast::syntax
