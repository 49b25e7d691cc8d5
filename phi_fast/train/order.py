"""Which windows of which store a step sees: a function of the seed and the step alone.

A store of tokens is cut into windows of equal length. Sample g of a run (step · batch + its place in the batch) is the
window that a keyed permutation of the store's windows gives; an epoch is one pass through all of them, and each is
shuffled by a key of its own. Nothing is drawn one after the other and nothing is held in memory, so any step is reached
at once, and ranks and micro-batches only decide who computes which samples of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import gcd, isfinite, isqrt, lcm
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from phi_fast.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints: TypeAlias = NDArray[np.int64]

_ROUNDS = 6
_FINEST = 1_000_000
_MOST_SHARES = 1 << 31  # so that a product of two stays below 2 ** 63


class Where(NamedTuple):
    """Samples: (n,) int64 each of store, epoch of that store, and window in it."""

    store: Ints
    epoch: Ints
    window: Ints


class Order:
    """The order of samples over one store or a mixture of several.

    Parameters
    ----------
    windows
        How many each store has; 1 or more.
    weights
        Share of the samples that come from each store, in any unit: (3, 1) and (0.75, 0.25) are the same. Unless
        given, the windows: all stores then end their epochs together.
    seed
        Another seed is another order.
    shuffle
        False: windows in the order of the store, in every epoch.

    Raises
    ------
    InputError
        No store, an empty one, or weights that are none.
    """

    def __init__(
        self,
        windows: Sequence[int],
        *,
        weights: Sequence[float] | None = None,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        if not windows or min(windows) < 1:
            raise InputError(f"windows {tuple(windows)}: give one store or more, of one window or more each")
        if weights is not None and len(weights) != len(windows):
            raise InputError(f"{len(weights)} weights for {len(windows)} stores: give one a store")
        self.windows, self.seed, self.shuffle = tuple(int(one) for one in windows), int(seed), shuffle
        self.shares = _whole_numbers(self.windows if weights is None else weights)

    def at(self, samples: Any) -> Where:
        """Where samples come from.

        Parameters
        ----------
        samples
            (n,) integers, 0 or more, in any order.
        """
        places = np.asarray(samples, np.int64)
        store, within = self._mixed(places)
        epoch, window = np.empty_like(places), np.empty_like(places)
        for number, count in enumerate(self.windows):
            mine = store == number
            epoch[mine], place = np.divmod(within[mine], count)
            if self.shuffle:
                for one in np.unique(epoch[mine]):
                    now = epoch[mine] == one
                    place[now] = permuted(place[now], count, (self.seed, number, int(one)))
            window[mine] = place
        return Where(store, epoch, window)

    def drawn(self, samples: int) -> list[int]:
        """How many of the first `samples` samples come from each store: the state of their epochs."""
        left, rest, counts = samples, sum(self.shares), []
        for share in self.shares:
            counts.append(left * share // rest if rest else 0)
            left, rest = left - counts[-1], rest - share
        return counts

    def _mixed(self, samples: Ints) -> tuple[Ints, Ints]:
        """Store of each sample, and how many samples before it were that store's.

        Of the first n samples floor(n · share / all shares) are the first store's; the others are mixed in the same
        way from the stores that are left. So counts differ from exact proportion by less than one a store before,
        and are known without going through what came before.
        """
        store, within = np.full(samples.shape, -1, np.int64), np.empty_like(samples)
        left, rest = samples.copy(), sum(self.shares)
        for number, share in enumerate(self.shares):
            open_ = store < 0
            before = _scaled(left, share, rest)
            mine = open_ & (_scaled(left + 1, share, rest) > before)
            store[mine], within[mine] = number, before[mine]
            left, rest = np.where(open_, left - before, left), rest - share
            if not rest:
                break
        return store, within


@dataclass(frozen=True)
class Split:
    """How a global batch is dealt out.

    Part p of a step, over all ranks, is samples p · world · micro and on; rank r takes the r-th `micro` of them. So a
    step is the same samples in the same order whatever `world` and `micro`.

    Attributes
    ----------
    batch : int
        Sequences a step, over all ranks and parts.
    micro : int
        Sequences of one forward pass of one rank.
    rank, world : int
        Which rank this is, of how many.

    Raises
    ------
    InputError
        `batch` is no multiple of `micro` · `world`, or there is no such rank.
    """

    batch: int
    micro: int
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if min(self.batch, self.micro, self.world) < 1:
            raise InputError(f"batch {self.batch}, micro {self.micro}, world {self.world}: each is 1 or more")
        if not 0 <= self.rank < self.world:
            raise InputError(f"rank {self.rank} of {self.world}: give 0 to {self.world - 1}")
        if self.batch % (self.micro * self.world):
            raise InputError(
                f"batch {self.batch}: no multiple of {self.micro} (micro) · {self.world} (world) = "
                f"{self.micro * self.world}"
            )

    @property
    def parts(self) -> int:
        """Micro-batches of this rank in a step: what gradients are accumulated over."""
        return self.batch // (self.micro * self.world)

    def samples(self, step: int, part: int) -> Ints:
        """The samples of this rank's micro-batch `part` of `step`: (micro,) int64."""
        first = step * self.batch + (part * self.world + self.rank) * self.micro
        return np.arange(first, first + self.micro, dtype=np.int64)


def permuted(places: Any, count: int, key: tuple[int, ...]) -> Ints:
    """Where a keyed permutation of 0 ... count - 1 sends places.

    A Feistel network over two digits of bases a · b >= count, a = ceil(sqrt(count)): each round adds to one digit,
    modulo its base, a hash of the other and of the round's key, which can be undone and so is a permutation; places
    sent beyond `count` are sent on until they are inside ("cycle walking": Black and Rogaway, "Ciphers with Arbitrary
    Finite Domains", 2002).

    Parameters
    ----------
    places
        (n,) integers in [0, count).
    count
        1 or more, below 2 ** 62.
    key
        Whatever tells this permutation from others.

    Returns
    -------
    ndarray
        (n,) int64.
    """
    a = isqrt(count - 1) + 1
    b = -(-count // a)
    keys = _keys(key)
    found = np.asarray(places, np.int64).astype(np.uint64)
    outside = np.ones(found.shape, bool)
    while outside.any():
        high, low = np.divmod(found[outside], np.uint64(b))
        for number, one in enumerate(keys):
            if number % 2:
                low = (low + _hashed(high, one) % np.uint64(b)) % np.uint64(b)
            else:
                high = (high + _hashed(low, one) % np.uint64(a)) % np.uint64(a)
        found[outside] = high * np.uint64(b) + low
        outside = found >= count
    return found.astype(np.int64)


@lru_cache(maxsize=1024)
def _keys(key: tuple[int, ...]) -> tuple[np.uint64, ...]:
    said = hashlib.blake2b(("phi_fast order 1 " + " ".join(map(str, key))).encode(), digest_size=8 * _ROUNDS).digest()
    return tuple(np.frombuffer(said, "<u8").astype(np.uint64))


def _hashed(values: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014), keyed; wraps around on purpose."""
    mixed = values * np.uint64(0x9E3779B97F4A7C15) + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _scaled(values: Ints, share: int, whole: int) -> Ints:
    """floor(values * share / whole), without a product beyond 2 ** 63."""
    return values // whole * share + values % whole * share // whole


def _whole_numbers(weights: Sequence[float]) -> tuple[int, ...]:
    """Weights as whole numbers in the same proportion, as written in decimals; finer ones are rounded to millionths."""
    if any(not isfinite(one) or one < 0 for one in weights) or sum(weights) <= 0:
        raise InputError(f"weights {tuple(weights)}: give numbers of 0 or more, not all 0")
    exact = [Fraction(str(one)) for one in weights]
    total = sum(exact)
    common = lcm(*(one.denominator for one in exact))
    whole = [int(one * common) for one in exact]
    shares = [one // gcd(*whole) for one in whole]
    if sum(shares) >= _MOST_SHARES:
        shares = [round(one / total * _FINEST) for one in exact]
    for one, share in zip(weights, shares, strict=True):
        if one and not share:
            raise InputError(f"weight {one}: under one in {_FINEST:,} of all; leave that store out, or give it more")
    return tuple(shares)
