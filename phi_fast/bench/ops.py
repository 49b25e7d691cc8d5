"""What is measured: an op, its cases, and everybody who computes it. A person's own joins by one decorator.

    @rival("layer_norm", name="mine")
    def my_layer_norm(x, weight, bias, eps): ...

`OPS` holds the ops by name; `phi_fast.bench.catalogue` fills it with the project's own, by these same decorators.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from phi_fast.errors import InputError

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
PASSES = ("forward", "backward", "both")
EAGER, COMPILED, OURS = "eager", "torch.compile", "phi_fast"

Sizes = Mapping[str, float]
Function = Callable[..., Any]


class Work(NamedTuple):
    """What a pass cannot do without: operations of matrix products, and bytes to be read or written."""

    flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: object) -> Work:
        """Add two passes up."""
        assert isinstance(other, Work)
        return Work(self.flops + other.flops, self.bytes + other.bytes)


def label(sizes: Sizes) -> str:
    """Name sizes for a table: ``length 2,048, head_dim 64``."""
    return ", ".join(f"{name} {value:,}" for name, value in sizes.items())


@dataclasses.dataclass(frozen=True)
class Case:
    """Sizes an op is measured at; `check` are the smaller ones its error is measured at, where fp64 is too large."""

    sizes: Sizes
    check: Sizes | None = None

    @property
    def label(self) -> str:
        """The case's name in tables."""
        return label(self.sizes)


class Draw:
    """Draws an op's inputs: the same numbers for the same seed, dtype and device, never zeros.

    Parameters
    ----------
    dtype, device
        Of what is drawn; the numbers are drawn in fp32 and rounded.
    seed
        Of a generator of its own.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device | str, seed: int = 0) -> None:
        self.dtype, self.device = dtype, torch.device(device)
        self._generator = torch.Generator(self.device).manual_seed(seed)

    def normal(
        self, *shape: int, mean: float = 0.0, scale: float = 1.0, dtype: torch.dtype | None = None, leaf: bool = True
    ) -> Tensor:
        """Draw from N(mean, scale²); a gradient is wanted for it, unless `leaf` is False."""
        drawn = torch.randn(shape, generator=self._generator, device=self.device) * scale + mean
        return drawn.to(dtype or self.dtype).requires_grad_(leaf)

    def integers(self, low: int, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        """Draw integers from low to high - 1."""
        return torch.randint(low, high, shape, generator=self._generator, device=self.device, dtype=dtype)


@dataclasses.dataclass(frozen=True)
class Implementation:
    """One way to compute an op.

    Attributes
    ----------
    build
        Gives the function, which takes the op's inputs; called once a case.
    needs
        ``"cuda"``: runs on a GPU alone. ``"compile"``: goes through torch.compile. ``""``: runs anywhere.
    missing
        Says what it lacks here, as ``"flash-attn is not installed"``; "" where it can run.
    exact
        False where its result is drawn anew each time (its own dropout mask), so that it has no error.
    own
        Whether it came from a person's file.
    """

    name: str
    build: Callable[[], Function]
    needs: str = ""
    missing: Callable[[], str] = lambda: ""
    exact: bool = True
    own: bool = False


Measure = Callable[[Sizes, int], Mapping[str, Work]]


@dataclasses.dataclass
class Op:
    """One operation, its definition in plain PyTorch, and all who compute it.

    Attributes
    ----------
    eager
        The definition: run in fp64 it is the truth, run in the measured dtype the yardstick.
    inputs
        (sizes, draw) -> the arguments; those that require a gradient get one.
    cases, small, interpreted
        For ``--case full``, ``--case small`` and ``--interpret``.
    work
        (sizes, bytes an element) -> the `Work` of forward and backward; None: arguments, results and gradients.
    axis
        The size that charts run along; the others make panels.
    passes
        Which of forward, backward and both make sense.
    own
        Whether it came from a person's file, which may have changed: never taken from an earlier run.
    """

    name: str
    summary: str
    eager: Function
    inputs: Callable[[Sizes, Draw], Sequence[Any]]
    cases: Sequence[Case]
    small: Sequence[Case]
    interpreted: Sequence[Case]
    work: Measure | None
    axis: str
    passes: Sequence[str]
    implementations: dict[str, Implementation]
    own: bool = False

    def works(self, sizes: Sizes, dtype: torch.dtype) -> dict[str, Work] | None:
        """Give each pass's work; "both" is the other two together unless the op says otherwise."""
        if self.work is None:
            return None
        each = dict(self.work(sizes, dtype.itemsize))
        if "both" not in each and {"forward", "backward"} <= set(each):
            each["both"] = each["forward"] + each["backward"]
        return each

    def chosen(self, names: Sequence[str] | None, *, cpu: bool) -> list[Implementation]:
        """Select implementations: all that run here, or those named; phi_fast and eager always.

        On a CPU what needs torch.compile must be named, for compiling there takes a C++ compiler and minutes.
        """
        always, given = (OURS, EAGER), list(self.implementations.values())
        if names is not None:
            return [one for one in given if one.name in names or one.name in always or one.own]
        return [one for one in given if not (cpu and one.needs)]


OPS: dict[str, Op] = {}


def _own(function: Function) -> bool:
    return not getattr(function, "__module__", "").startswith("phi_fast.")


def _cases(given: Sequence[Sizes | Case]) -> tuple[Case, ...]:
    return tuple(one if isinstance(one, Case) else Case(one) for one in given)


def op(
    name: str,
    *,
    inputs: Callable[[Sizes, Draw], Sequence[Any]],
    cases: Sequence[Sizes | Case],
    small: Sequence[Sizes | Case] | None = None,
    interpreted: Sequence[Sizes | Case] | None = None,
    work: Measure | None = None,
    axis: str | None = None,
    passes: Sequence[str] = PASSES,
    summary: str = "",
    compiles: bool = True,
) -> Callable[[Function], Function]:
    """Make the decorated function, plain PyTorch, the definition of a new op; see `Op` for the parameters.

    It is measured as "eager" and, if it `compiles`, as "torch.compile". `small` defaults to the first case,
    `interpreted` to `small`, `axis` to the first size, `summary` to the function's docstring.

    Raises
    ------
    InputError
        The name is taken, a pass is unknown, or there is no case.
    """
    if name in OPS:
        raise InputError(f'op: "{name}" is taken')
    unknown = [one for one in passes if one not in PASSES]
    if unknown or not passes:
        raise InputError(f"passes: expected some of {', '.join(PASSES)}, got {', '.join(unknown) or 'none'}")
    if not cases:
        raise InputError(f'cases: op "{name}" has none')

    def register(function: Function) -> Function:
        every = _cases(cases)
        few = _cases(small) if small is not None else every[:1]
        said = summary or (function.__doc__ or "").strip().split("\n")[0]
        here = Op(
            name, said, function, inputs, every, few, few if interpreted is None else _cases(interpreted), work,
            axis or next(iter(every[0].sizes), ""), tuple(passes), {}, _own(function),
        )  # fmt: skip
        here.implementations[EAGER] = Implementation(EAGER, lambda: function)
        if compiles:
            here.implementations[COMPILED] = Implementation(COMPILED, lambda: compiled(function), "compile")
        OPS[name] = here
        return function

    return register


def compiled(function: Function) -> Function:
    """Compile for the very sizes it is first called with, as a benchmark must."""
    made: Function = torch.compile(function, dynamic=False)
    return made


def rival(
    to: str,
    *,
    name: str | None = None,
    needs: str = "",
    packages: Sequence[str] = (),
    missing: Callable[[], str] | None = None,
    exact: bool = True,
    builds: bool = False,
) -> Callable[[Function], Function]:
    """Let the decorated function, which takes the op's inputs, join op `to` beside the others.

    Parameters
    ----------
    to
        The op's name; ``phi-fast bench kernels --list`` shows them.
    name
        In tables; by default the function's own.
    needs, missing, exact
        See `Implementation`.
    packages
        Distributions it imports, as ``"liger-kernel:liger_kernel"`` where module and distribution differ in name.
    builds
        The decorated function takes nothing and gives the function to be measured, once a case.

    Raises
    ------
    InputError
        There is no such op, the name is taken, or `needs` is unknown.
    """
    if to not in OPS:
        raise InputError(f'rival: no op "{to}"; known are {", ".join(OPS)}')
    if needs not in ("", "cuda", "compile"):
        raise InputError(f'needs: expected "", "cuda" or "compile", got "{needs}"')

    def lacks() -> str:
        for package in packages:
            distribution, _, module = package.partition(":")
            if importlib.util.find_spec(module or distribution) is None:
                return f"{distribution} is not installed"
        return missing() if missing is not None else ""

    def register(function: Function) -> Function:
        called = name or function.__name__
        known = OPS[to].implementations
        if called in known:
            raise InputError(f'rival: op "{to}" has an implementation "{called}" already; give another name')
        own = called != OURS and _own(function)
        build = function if builds else lambda: function
        known[called] = Implementation(called, build, needs, lacks, exact, own)
        if called == OURS:  # first in every table
            OPS[to].implementations = {OURS: known.pop(OURS), **known}
        return function

    return register
