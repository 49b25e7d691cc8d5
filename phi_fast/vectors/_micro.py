"""The innermost loop of the search, in LLVM's words: one tile of inner products, held in registers and compared there.

Numba compiles what is here for the machine at hand. It is not written as a loop for LLVM to vectorise, because what
makes it fast is which values stay in registers: `LANES` vectors of the packed side in each of `WIDE` registers, times
`ROWS` rows of the streamed side, each element of which is broadcast straight from its row.
"""

from __future__ import annotations

import os
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_FEATURES = dict(llvm.get_host_cpu_features())
_FMA = bool(_FEATURES.get("fma")) or "aarch64" in llvm.get_default_triple() or "arm64" in llvm.get_default_triple()

FORCED = os.environ.get("PHI_FAST_NATIVE") or None
"""scalar, avx2 or avx512: narrower registers than the machine has, as for the other engines."""

if _FEATURES.get("avx512f") and FORCED in (None, "avx512"):  # 32 registers: 24 sums, 3 loads, the broadcast
    LANES, WIDE, ROWS = 16, 3, 8
elif _FEATURES.get("avx2") and _FMA and FORCED != "scalar":  # 16 registers: 12 sums, 2 loads, the broadcast
    LANES, WIDE, ROWS = 8, 2, 6
else:
    LANES, WIDE, ROWS = 4, 2, 4

UNROLL = 8
LINE = 64
"""Bytes fetched ahead for every `UNROLL` elements of the inner loop."""

_F32, _I32, _I64, _PTR = ir.FloatType(), ir.IntType(32), ir.IntType(64), ir.PointerType(ir.IntType(8))
_VEC = ir.VectorType(_F32, LANES)
_ZERO = ir.Constant(_I32, 0)


def _at(build: Any, base: Any, index: Any, of: ir.Type) -> Any:
    """Address of element `index` of an array of `of` at `base`."""
    return build.gep(build.bitcast(base, of.as_pointer()), [index], source_etype=of)


def _load(build: Any, base: Any, index: Any, of: ir.Type = _F32) -> Any:
    place = build.bitcast(_at(build, base, index, _F32), of.as_pointer())
    return build.load(place, align=4, typ=of)


def _splat(build: Any, scalar: Any) -> Any:
    undefined = ir.Constant(_VEC, ir.Undefined)
    one = build.insert_element(undefined, scalar, _ZERO)
    return build.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))


def _declared(module: Any, name: str, gives: ir.Type, takes: list[ir.Type]) -> Any:
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(gives, takes), name)


def _tile_function(module: Any, wide: int) -> Any:
    """The function for panels of `wide` registers, added to the module once."""
    name = f"phi_fast_tile_{LANES}x{wide}x{ROWS}"
    if name in module.globals:
        return module.globals[name]
    kind = ir.FunctionType(_I32, [_PTR, _PTR, _I64, _I64, _I64, _PTR, _PTR, _PTR, _PTR, _PTR])
    function = ir.Function(module, kind, name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    panel, rows, stride, size, present, low, half, sums, masks, ahead = function.args
    fuse = _declared(module, f"llvm.{'fma' if _FMA else 'fmuladd'}.v{LANES}f32", _VEC, [_VEC, _VEC, _VEC])
    fetch = _declared(module, "llvm.prefetch.p0", ir.VoidType(), [_PTR, _I32, _I32, _I32])

    def const(value: int) -> Any:
        return ir.Constant(_I64, value)

    build = ir.IRBuilder(function.append_basic_block("entry"))
    last = build.sub(present, const(1))
    bases = []
    for row in range(ROWS):  # a group that is not full reads its last row again
        within = build.icmp_signed("<", const(row), present)
        bases.append(_at(build, rows, build.mul(build.select(within, const(row), last), stride), _F32))
    state = [ir.Constant(_VEC, [0.0] * LANES)] * (wide * ROWS)
    start: Any = const(0)
    for step in (UNROLL, 1):
        before = build.block
        loop = function.append_basic_block(f"by_{step}")
        after = function.append_basic_block(f"after_{step}")
        enough = build.icmp_signed("<=", build.add(start, const(step)), size)
        build.cbranch(enough, loop, after)
        build = ir.IRBuilder(loop)
        at = build.phi(_I64)
        at.add_incoming(start, before)
        phis = []
        for value in state:
            phi = build.phi(_VEC)
            phi.add_incoming(value, before)
            phis.append(phi)
        running: list[Any] = list(phis)
        if step == UNROLL:
            line = build.mul(at, const(LINE // UNROLL))
            build.call(
                fetch, [_at(build, ahead, line, ir.IntType(8)), _ZERO, ir.Constant(_I32, 2), ir.Constant(_I32, 1)]
            )
        for k in range(step):
            here = build.add(at, const(k))
            first = build.mul(here, const(wide * LANES))
            lanes = [_load(build, panel, build.add(first, const(v * LANES)), _VEC) for v in range(wide)]
            for row in range(ROWS):
                element = _splat(build, _load(build, bases[row], here))
                for v in range(wide):
                    running[row * wide + v] = build.call(fuse, [lanes[v], element, running[row * wide + v]])
        following = build.add(at, const(step))
        at.add_incoming(following, loop)
        for phi, value in zip(phis, running, strict=True):
            phi.add_incoming(value, loop)
        build.cbranch(build.icmp_signed("<=", build.add(following, const(step)), size), loop, after)
        build = ir.IRBuilder(after)
        joined = []
        for value, new in zip(state, running, strict=True):
            phi = build.phi(_VEC)
            phi.add_incoming(value, before)
            phi.add_incoming(new, loop)
            joined.append(phi)
        state = joined
        reached = build.phi(_I64)
        reached.add_incoming(start, before)
        reached.add_incoming(following, loop)
        start = reached
    lows = [_load(build, low, const(v * LANES), _VEC) for v in range(wide)]
    found: Any = _ZERO
    for row in range(ROWS):
        halved = _splat(build, _load(build, half, const(row)))
        for v in range(wide):
            value = state[row * wide + v]
            place = const((row * wide + v) * LANES)
            build.store(value, build.bitcast(_at(build, sums, place, _F32), _VEC.as_pointer()), align=4)
            passed = build.fcmp_unordered(">=", value, build.fadd(lows[v], halved))  # what is no number passes
            bits = build.bitcast(passed, ir.IntType(LANES))
            bits = build.zext(bits, _I32)
            build.store(bits, _at(build, masks, const(row * wide + v), _I32), align=4)
            found = build.or_(found, bits)
    build.ret(found)
    return function


def _tile(wide: int) -> Any:
    @intrinsic
    def tile(
        typing: Any, panel: Any, rows: Any, stride: Any, size: Any, present: Any, low: Any, half: Any, sums: Any,
        masks: Any, ahead: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            given = [
                builder.inttoptr(value, _PTR) if place not in (2, 3, 4) else value
                for place, value in enumerate(arguments)
            ]
            return builder.call(_tile_function(builder.module, wide), given)

        return types.int32(*[types.int64] * 10), generate

    return tile


tile_1, tile_2, tile_3 = _tile(1), _tile(2), _tile(3)
"""Inner products of a panel with up to `ROWS` rows; addresses are integers.

``tile(panel, rows, stride, size, present, low, half, sums, masks, ahead)``: `panel` holds `size` times ``WIDE * LANES``
floats; `rows` begin `stride` floats apart, `present` of them are there. ``sums[row, lane]`` gets the inner product,
``masks[row, register]`` a bit for every lane whose product is not below ``low[lane] + half[row]``. Memory from `ahead`
on is fetched into the cache meanwhile. Gives all masks or-ed together.
"""


@intrinsic
def lowest_bit(typing: Any, value: Any) -> Any:
    """Place of the lowest bit that is set, of an int32 that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int32(types.int32), generate


@intrinsic
def float_pointer(typing: Any, address: Any) -> Any:
    """Pointer to float32 from an address, for `numba.carray`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.int64), generate


@intrinsic
def mask_of(typing: Any, sums: Any, low: Any, half: Any) -> Any:
    """A bit for each lane of a register whose product at `sums` is not below ``low[lane] + half``."""

    def generate(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
        value, lowest = (_load(build, build.inttoptr(at, _PTR), _ZERO, _VEC) for at in arguments[:2])
        passed = build.fcmp_unordered(">=", value, build.fadd(lowest, _splat(build, arguments[2])))
        return build.zext(build.bitcast(passed, ir.IntType(LANES)), _I32)

    return types.int32(types.int64, types.int64, types.float32), generate


@intrinsic
def seed(typing: Any, sums: Any, norms: Any, wide: Any, k: Any) -> Any:
    """Not less than the k-th smallest of ``norms - 2 * sums`` over `wide` registers: the k-th smallest of what is
    least in each lane, equal ones counted once. Infinite where there are not k."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        module = builder.module
        name = f"phi_fast_seed_{LANES}"
        function = module.globals.get(name)
        if function is None:
            function = ir.Function(module, ir.FunctionType(_F32, [_PTR, _PTR, _I64, _I64]), name)
            function.linkage = "internal"
            _seed_body(module, function)
        at, of, *counts = arguments
        return builder.call(function, [builder.inttoptr(at, _PTR), builder.inttoptr(of, _PTR), *counts])

    return types.float32(*[types.int64] * 4), generate


def _seed_body(module: Any, function: Any) -> None:
    sums, norms, wide, k = function.args
    fuse = _declared(module, f"llvm.fmuladd.v{LANES}f32", _VEC, [_VEC, _VEC, _VEC])
    least_of = _declared(module, f"llvm.vector.reduce.fmin.v{LANES}f32", _F32, [_VEC])
    infinite = ir.Constant(_VEC, [float("inf")] * LANES)
    entry, gather, passes, end = (function.append_basic_block(name) for name in ("entry", "gather", "passes", "end"))
    ir.IRBuilder(entry).branch(gather)
    build = ir.IRBuilder(gather)
    register, least = build.phi(_I64), build.phi(_VEC)
    place = build.mul(register, ir.Constant(_I64, LANES))
    minus = ir.Constant(_VEC, [-2.0] * LANES)
    value = build.call(fuse, [_load(build, sums, place, _VEC), minus, _load(build, norms, place, _VEC)])
    lower = build.select(build.fcmp_ordered("<", value, least), value, least)
    following = build.add(register, ir.Constant(_I64, 1))
    for phi, first, then in ((register, ir.Constant(_I64, 0), following), (least, infinite, lower)):
        phi.add_incoming(first, entry)
        phi.add_incoming(then, gather)
    build.cbranch(build.icmp_signed("<", following, wide), gather, passes)
    build = ir.IRBuilder(passes)
    number, bound = build.phi(_I64), build.phi(_F32)
    above = build.select(build.fcmp_ordered(">", lower, _splat(build, bound)), lower, infinite)
    smallest = build.call(least_of, [above])
    counted = build.add(number, ir.Constant(_I64, 1))
    for phi, first, then in (
        (number, ir.Constant(_I64, 0), counted),
        (bound, ir.Constant(_F32, float("-inf")), smallest),
    ):
        phi.add_incoming(first, gather)
        phi.add_incoming(then, passes)
    build.cbranch(build.icmp_signed("<", counted, k), passes, end)
    ir.IRBuilder(end).ret(smallest)
