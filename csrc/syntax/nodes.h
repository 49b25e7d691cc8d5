// Node types of CPython's ast (3.11, and 3.12's type parameters), in one list: enum, names and order.
#pragma once

#include <cstdint>

namespace phi_fast::syntax {

// Operators are nodes of their own, as in ast; expression contexts (Load, Store, Del) are not counted.
#define PHI_FAST_NODE_TYPES(X)                                                                                          \
    X(Module) X(FunctionDef) X(AsyncFunctionDef) X(ClassDef) X(Return) X(Delete) X(Assign) X(TypeAlias) X(AugAssign)    \
    X(AnnAssign) X(For) X(AsyncFor) X(While) X(If) X(With) X(AsyncWith) X(Match) X(Raise) X(Try) X(TryStar) X(Assert)   \
    X(Import) X(ImportFrom) X(Global) X(Nonlocal) X(Expr) X(Pass) X(Break) X(Continue)                                  \
    X(BoolOp) X(NamedExpr) X(BinOp) X(UnaryOp) X(Lambda) X(IfExp) X(Dict) X(Set) X(ListComp) X(SetComp) X(DictComp)     \
    X(GeneratorExp) X(Await) X(Yield) X(YieldFrom) X(Compare) X(Call) X(FormattedValue) X(JoinedStr) X(Constant)        \
    X(Attribute) X(Subscript) X(Starred) X(Name) X(List) X(Tuple) X(Slice)                                              \
    X(And) X(Or) X(Add) X(Sub) X(Mult) X(MatMult) X(Div) X(Mod) X(Pow) X(LShift) X(RShift) X(BitOr) X(BitXor) X(BitAnd) \
    X(FloorDiv) X(Invert) X(Not) X(UAdd) X(USub) X(Eq) X(NotEq) X(Lt) X(LtE) X(Gt) X(GtE) X(Is) X(IsNot) X(In) X(NotIn) \
    X(comprehension) X(ExceptHandler) X(arguments) X(arg) X(keyword) X(alias) X(withitem) X(match_case)                 \
    X(MatchValue) X(MatchSingleton) X(MatchSequence) X(MatchMapping) X(MatchClass) X(MatchStar) X(MatchAs) X(MatchOr)   \
    X(TypeVar) X(ParamSpec) X(TypeVarTuple)

enum class Type : std::uint8_t {
#define PHI_FAST_NODE_ENUM(name) name,
    PHI_FAST_NODE_TYPES(PHI_FAST_NODE_ENUM)
#undef PHI_FAST_NODE_ENUM
        count
};

const char* type_name(Type type);

}  // namespace phi_fast::syntax
