"""Random Python programs: trees put together at random, every node type among them, written out by `ast.unparse`."""

from __future__ import annotations

import ast
import random
import sys
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")

NAMES = ["a", "b", "self", "match", "case", "type", "_", "print", "exec", "été", "x1", "f", "rb"]
CONSTANTS: list[Any] = [
    0, 1, 10**30, 1.5, 1e300, 2j, True, None, ..., "", "text", "{braces}", "it's", 'a "quote"', "line\nbreak", b"",
    b"\x00\xff", "\\",
]  # fmt: skip
BINARY = [
    ast.Add, ast.Sub, ast.Mult, ast.MatMult, ast.Div, ast.Mod, ast.Pow, ast.LShift, ast.RShift, ast.BitOr, ast.BitXor,
    ast.BitAnd,
    ast.FloorDiv,
]  # fmt: skip
COMPARISONS = [ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Is, ast.IsNot, ast.In, ast.NotIn]


class Programs:
    """Programs from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def program(self) -> str:
        """One that this interpreter's own parser accepts."""
        while True:
            tree = ast.Module(body=self.block(3), type_ignores=[])
            try:
                source = ast.unparse(ast.fix_missing_locations(tree))
                ast.parse(source)
            except (ValueError, SyntaxError):
                continue  # not everything that can be put together can be written out
            return source

    def some(self, make: Callable[[], T], least: int = 0, most: int = 3) -> list[T]:
        return [make() for _ in range(self.random.randint(least, most))]

    def maybe(self, make: Callable[[], T]) -> T | None:
        return make() if self.random.random() < 0.4 else None

    def name(self) -> str:
        return self.random.choice(NAMES)

    def expression(self, depth: int) -> ast.expr:
        if depth <= 0:
            return self.random.choice([self.constant, self.variable])()
        return self.random.choice(self.EXPRESSIONS)(self, depth - 1)

    def constant(self, depth: int = 0) -> ast.expr:
        return ast.Constant(self.random.choice(CONSTANTS))

    def variable(self, depth: int = 0) -> ast.expr:
        return ast.Name(self.name(), ast.Load())

    def starred(self, depth: int) -> ast.expr:
        value = self.expression(depth)
        return ast.Starred(value, ast.Load()) if self.random.random() < 0.2 else value

    def bool_op(self, d: int) -> ast.expr:
        return ast.BoolOp(self.random.choice([ast.And, ast.Or])(), self.some(lambda: self.expression(d), 2))

    def named(self, d: int) -> ast.expr:
        return ast.NamedExpr(ast.Name(self.name(), ast.Store()), self.expression(d))

    def bin_op(self, d: int) -> ast.expr:
        return ast.BinOp(self.expression(d), self.random.choice(BINARY)(), self.expression(d))

    def unary(self, d: int) -> ast.expr:
        return ast.UnaryOp(self.random.choice([ast.Not, ast.Invert, ast.UAdd, ast.USub])(), self.expression(d))

    def lambda_(self, d: int) -> ast.expr:
        return ast.Lambda(self.arguments(d, False), self.expression(d))

    def conditional(self, d: int) -> ast.expr:
        return ast.IfExp(self.expression(d), self.expression(d), self.expression(d))

    def dict_(self, d: int) -> ast.expr:
        keys = self.some(lambda: self.maybe(lambda: self.expression(d)))
        return ast.Dict(keys, [self.expression(d) for _ in keys])

    def display(self, d: int) -> ast.expr:
        elements = self.some(lambda: self.starred(d), 1)
        kind = self.random.choice([ast.Set, ast.List, ast.Tuple])
        return ast.Set(elements) if kind is ast.Set else kind(elements[self.random.randrange(2) :], ast.Load())

    def comprehension(self, d: int) -> ast.expr:
        def clause() -> ast.comprehension:
            conditions = self.some(lambda: self.expression(d), 0, 2)
            return ast.comprehension(self.target(d), self.expression(d), conditions, self.random.randrange(2))

        clauses = self.some(clause, 1, 2)
        kind = self.random.choice([ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp])
        if kind is ast.DictComp:
            return ast.DictComp(self.expression(d), self.expression(d), clauses)
        return kind(self.expression(d), clauses)

    def waiting(self, d: int) -> ast.expr:
        kind = self.random.choice([ast.Await, ast.Yield, ast.YieldFrom])
        return ast.Yield(self.maybe(lambda: self.expression(d))) if kind is ast.Yield else kind(self.expression(d))

    def compare(self, d: int) -> ast.expr:
        operators = self.some(lambda: self.random.choice(COMPARISONS)(), 1)
        return ast.Compare(self.expression(d), operators, [self.expression(d) for _ in operators])

    def call(self, d: int) -> ast.expr:
        keywords = self.some(lambda: ast.keyword(self.maybe(self.name), self.expression(d)), 0, 2)
        return ast.Call(self.expression(d), self.some(lambda: self.starred(d)), keywords)

    def format_string(self, d: int) -> ast.expr:
        def field(spec: bool = True) -> ast.FormattedValue:
            inner = ast.JoinedStr([ast.Constant(">"), field(False)]) if spec and self.random.random() < 0.3 else None
            return ast.FormattedValue(self.expression(d), self.random.choice([-1, ord("r"), ord("s"), ord("a")]), inner)

        def piece() -> ast.expr:
            return (
                field() if self.random.randrange(2) else ast.Constant(self.random.choice(["text", "{}", "it's", " "]))
            )

        return ast.JoinedStr(self.some(piece))

    def attribute(self, d: int) -> ast.expr:
        return ast.Attribute(self.expression(d), self.name(), ast.Load())

    def subscript(self, d: int) -> ast.expr:
        def index() -> ast.expr:
            if self.random.randrange(2):
                return self.starred(d)
            ends = [self.maybe(lambda: self.expression(d)) for _ in range(3)]
            return ast.Slice(*ends)

        inside = ast.Tuple(self.some(index, 1), ast.Load()) if self.random.randrange(2) else index()
        return ast.Subscript(self.expression(d), inside, ast.Load())

    EXPRESSIONS: ClassVar[list[Any]] = [
        constant, variable, bool_op, named, bin_op, unary, lambda_, conditional, dict_, display, comprehension,
        waiting, compare,
        call, format_string, attribute, subscript,
    ]  # fmt: skip

    def target(self, depth: int) -> ast.expr:
        kind = self.random.randrange(5 if depth > 0 else 1)
        if kind == 1:
            return ast.Attribute(self.expression(depth - 1), self.name(), ast.Store())
        if kind == 2:
            return ast.Subscript(self.expression(depth - 1), self.expression(depth - 1), ast.Store())
        if kind > 2:
            elements = self.some(lambda: self.target(depth - 1), 1)
            elements[0] = ast.Starred(elements[0], ast.Store()) if self.random.randrange(2) else elements[0]
            return (ast.Tuple if kind == 3 else ast.List)(elements, ast.Store())
        return ast.Name(self.name(), ast.Store())

    def arguments(self, d: int, annotated: bool = True) -> ast.arguments:
        unused = iter(self.random.sample(NAMES, len(NAMES)))

        def one() -> ast.arg:
            return ast.arg(next(unused), self.maybe(lambda: self.expression(d)) if annotated else None)

        first, second, third = self.some(one, 0, 2), self.some(one, 0, 2), self.some(one, 0, 2)
        defaults = self.some(lambda: self.expression(d), 0, len(first + second))
        kw_defaults = [self.maybe(lambda: self.expression(d)) for _ in third]
        return ast.arguments(first, second, self.maybe(one), third, kw_defaults, self.maybe(one), defaults)

    def type_parameters(self, d: int) -> dict[str, list[Any]]:
        if sys.version_info < (3, 12):
            return {}

        def one() -> Any:
            kind = self.random.choice([ast.TypeVar, ast.ParamSpec, ast.TypeVarTuple])
            parameter = kind(self.name())
            if kind is ast.TypeVar:
                parameter.bound = self.maybe(lambda: self.expression(d))
            if sys.version_info >= (3, 13):
                parameter.default_value = self.maybe(lambda: self.expression(d))
            return parameter

        return {"type_params": self.some(one, 0, 2)}

    def pattern(self, d: int) -> Any:
        kind = self.random.randrange(9 if d > 0 else 3)
        if kind == 0:
            return ast.MatchValue(ast.Constant(self.random.choice([1, -2.5, 3j, "text", b"b"])))
        if kind == 1:
            return ast.MatchSingleton(self.random.choice([None, True, False]))
        if kind == 2:
            return ast.MatchAs(name=self.maybe(lambda: self.random.choice(["a", "b", "case"])))
        if kind == 3:
            return ast.MatchValue(ast.Attribute(ast.Name("a", ast.Load()), "b", ast.Load()))
        if kind == 4:
            patterns = self.some(lambda: self.pattern(d - 1))
            if self.random.randrange(2):
                patterns.append(ast.MatchStar(self.maybe(self.name)))
            return ast.MatchSequence(patterns)
        if kind == 5:
            keys = [ast.Constant(number) for number in range(self.random.randrange(3))]
            return ast.MatchMapping(keys, [self.pattern(d - 1) for _ in keys], self.maybe(lambda: "rest"))
        if kind == 6:
            named = self.some(self.name, 0, 2)
            keyed = [self.pattern(d - 1) for _ in named]
            return ast.MatchClass(ast.Name("A", ast.Load()), self.some(lambda: self.pattern(d - 1), 0, 2), named, keyed)
        if kind == 7:
            return ast.MatchOr(self.some(lambda: self.pattern(d - 1), 2))
        return ast.MatchAs(self.pattern(d - 1), "a")

    def block(self, depth: int) -> list[ast.stmt]:
        return self.some(lambda: self.statement(depth), 1)

    def statement(self, depth: int) -> ast.stmt:
        kinds = self.SIMPLE if depth <= 0 else self.SIMPLE + self.COMPOUND
        return self.random.choice(kinds)(self, depth - 1)

    def keyword_statement(self, d: int) -> ast.stmt:
        return self.random.choice([ast.Pass, ast.Break, ast.Continue])()

    def scope(self, d: int) -> ast.stmt:
        return self.random.choice([ast.Global, ast.Nonlocal])(self.some(self.name, 1))

    def return_(self, d: int) -> ast.stmt:
        return ast.Return(self.maybe(lambda: self.expression(2)))

    def expression_statement(self, d: int) -> ast.stmt:
        return ast.Expr(self.expression(3))

    def delete(self, d: int) -> ast.stmt:
        return ast.Delete([ast.Name(self.name(), ast.Del()) for _ in range(2)])

    def assign(self, d: int) -> ast.stmt:
        return ast.Assign(self.some(lambda: self.target(2), 1), self.starred(3), lineno=1)

    def augmented(self, d: int) -> ast.stmt:
        return ast.AugAssign(ast.Name(self.name(), ast.Store()), self.random.choice(BINARY)(), self.expression(2))

    def annotated(self, d: int) -> ast.stmt:
        target, value = ast.Name(self.name(), ast.Store()), self.maybe(lambda: self.expression(2))
        return ast.AnnAssign(target, self.expression(2), value, self.random.randrange(2))

    def raise_(self, d: int) -> ast.stmt:
        error = self.maybe(lambda: self.expression(2))
        return ast.Raise(error, self.maybe(lambda: self.expression(1)) if error else None)

    def assert_(self, d: int) -> ast.stmt:
        return ast.Assert(self.expression(2), self.maybe(lambda: self.expression(1)))

    def import_(self, d: int) -> ast.stmt:
        return ast.Import(self.some(lambda: ast.alias("a.b", self.maybe(self.name)), 1))

    def import_from(self, d: int) -> ast.stmt:
        names = (
            [ast.alias("*")]
            if self.random.random() < 0.2
            else self.some(lambda: ast.alias(self.name(), self.maybe(self.name)), 1)
        )
        return ast.ImportFrom(self.random.choice(["a", "a.b"]), names, self.random.randrange(5))

    def alias_(self, d: int) -> ast.stmt:
        if sys.version_info < (3, 12):
            return ast.Pass()
        return ast.TypeAlias(ast.Name(self.name(), ast.Store()), value=self.expression(2), **self.type_parameters(1))

    SIMPLE: ClassVar[list[Any]] = [
        keyword_statement, scope, return_, expression_statement, delete, assign, augmented, annotated, raise_,
        assert_, import_,
        import_from, alias_,
    ]  # fmt: skip

    def function(self, d: int) -> ast.stmt:
        kind = self.random.choice([ast.FunctionDef, ast.AsyncFunctionDef])
        body = self.block(d)
        if self.random.randrange(2):
            body.insert(0, ast.Expr(ast.Constant("A docstring.")))
        decorators, returns = self.some(lambda: self.expression(2), 0, 2), self.maybe(lambda: self.expression(2))
        return kind(self.name(), self.arguments(1), body, decorators, returns, lineno=1, **self.type_parameters(1))

    def class_(self, d: int) -> ast.stmt:
        keywords = self.some(lambda: ast.keyword(self.maybe(self.name), self.expression(1)), 0, 2)
        bases, decorators = self.some(lambda: self.starred(1)), self.some(lambda: self.expression(2), 0, 2)
        return ast.ClassDef(self.name(), bases, keywords, self.block(d), decorators, **self.type_parameters(1))

    def for_(self, d: int) -> ast.stmt:
        kind = self.random.choice([ast.For, ast.AsyncFor])
        return kind(
            self.target(2), self.expression(2), self.block(d), self.maybe(lambda: self.block(d)) or [], lineno=1
        )

    def branch(self, d: int) -> ast.stmt:
        kind = self.random.choice([ast.If, ast.While])
        return kind(self.expression(2), self.block(d), self.maybe(lambda: self.block(d)) or [])

    def with_(self, d: int) -> ast.stmt:
        items = self.some(lambda: ast.withitem(self.expression(2), self.maybe(lambda: self.target(1))), 1)
        return self.random.choice([ast.With, ast.AsyncWith])(items, self.block(d), lineno=1)

    def match_(self, d: int) -> ast.stmt:
        def case() -> ast.match_case:
            return ast.match_case(self.pattern(3), self.maybe(lambda: self.expression(2)), self.block(d))

        return ast.Match(self.expression(2), self.some(case, 1))

    def try_(self, d: int) -> ast.stmt:
        handlers = self.some(lambda: ast.ExceptHandler(self.expression(1), self.maybe(self.name), self.block(d)))
        kind = self.random.choice([ast.Try, ast.TryStar])
        orelse = (self.maybe(lambda: self.block(d)) or []) if handlers else []
        return kind(self.block(d), handlers, orelse, [] if handlers and self.random.randrange(2) else self.block(d))

    COMPOUND: ClassVar[list[Any]] = [function, class_, for_, branch, with_, match_, try_]
