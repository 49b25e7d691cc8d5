"""Write what C++ must know of Unicode to find words and bring them to their normal form, and what a test expects of it.

Run in the repository with a Python whose unicodedata holds the wanted version (3.13 holds 15.1.0):

    python3.13 tools/make_unicode_tables.py

The tables are data in the repository, so that building needs no particular Python and every build agrees.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

VERSION = "15.1.0"
CODE_POINTS = range(sys.maxunicode + 1)
WORD, LETTER, UNSTABLE = 1, 2, 4
HANGUL_SYLLABLES = range(0xAC00, 0xD7A4)
HANGUL_VOWELS = range(0x1161, 0x1176)
HANGUL_TAILS = range(0x11A8, 0x11C3)
PAIR_SLOTS = 2048
ROOT = Path(__file__).resolve().parent.parent
SEQUENCES = 200_000


def is_surrogate(point: int) -> bool:
    return 0xD800 <= point <= 0xDFFF


def nfkc_is_itself(point: int) -> bool:
    return is_surrogate(point) or unicodedata.normalize("NFKC", chr(point)) == chr(point)


def full_decomposition(point: int) -> tuple[int, ...]:
    """Compatibility decomposition, expanded to the end; empty if the code point stands for itself or is Hangul."""
    if is_surrogate(point) or point in HANGUL_SYLLABLES:
        return ()
    expanded = tuple(map(ord, unicodedata.normalize("NFKD", chr(point))))
    return () if expanded == (point,) else expanded


def primary_pairs() -> dict[tuple[int, int], int]:
    """Canonical compositions (first, second) -> composite, without Hangul and without the composition exclusions."""
    pairs = {}
    for point in CODE_POINTS:
        mapping = unicodedata.decomposition(chr(point))
        if not mapping or mapping.startswith("<"):
            continue
        parts = [int(part, 16) for part in mapping.split()]
        if len(parts) == 2 and unicodedata.normalize("NFC", chr(point)) == chr(point):
            pairs[parts[0], parts[1]] = point
    return pairs


def word_flags(seconds: set[int]) -> list[int]:
    flags = []
    for point in CODE_POINTS:
        char = chr(point)
        category = unicodedata.category(char)
        flag = 0
        if category[0] in "LMN" or char == "_":
            flag |= WORD
        if category[0] == "L":
            flag |= LETTER
        joins_what_precedes = point in seconds or point in HANGUL_VOWELS or point in HANGUL_TAILS
        stable = nfkc_is_itself(point) and unicodedata.combining(char) == 0 and not joins_what_precedes
        if not stable or len(char.lower()) > 1:
            flag |= UNSTABLE
        flags.append(flag)
    return flags


def two_stage(values: Sequence[int]) -> tuple[int, list[int], list[int]]:
    """Split into blocks of 2**shift and share equal blocks; the shift that takes least memory."""
    best: tuple[int, int, list[int], list[int]] | None = None
    for shift in range(4, 10):
        size = 1 << shift
        blocks: dict[tuple[int, ...], int] = {}
        first = [blocks.setdefault(tuple(values[at : at + size]), len(blocks)) for at in range(0, len(values), size)]
        second = [value for block in blocks for value in block]
        cost = len(first) * width(first) + len(second) * width(second)
        if best is None or cost < best[0]:
            best = (cost, shift, first, second)
    assert best is not None
    return best[1:]


def width(values: Iterable[int]) -> int:
    largest = max(values)
    return 1 if largest < 1 << 8 else 2 if largest < 1 << 16 else 4


def array(name: str, values: Sequence[int], c_type: str | None = None) -> str:
    c_type = c_type or f"std::uint{8 * width(values)}_t"
    lines, line = [], ""
    for value in values:
        text = f"{value},"
        if len(line) + len(text) > 118:
            lines.append(line)
            line = ""
        line += text
    lines.append(line)
    return f"inline constexpr {c_type} {name}[{len(values)}] = {{\n" + "\n".join(lines) + "\n};\n"


def staged(name: str, values: Sequence[int]) -> str:
    shift, first, second = two_stage(values)
    assert all(second[(first[at >> shift] << shift) + (at & ((1 << shift) - 1))] == values[at] for at in CODE_POINTS)
    return (
        f"inline constexpr unsigned {name}_shift = {shift};\n"
        + array(f"{name}_block", first)
        + array(f"{name}_value", second)
    )


def pair_slot(first: int, second: int) -> int:
    """Where the search for a pair begins; the same arithmetic as compose() in unicode.cpp."""
    return ((first * 0x9E3779B1 + second * 0x85EBCA77) & 0xFFFFFFFF) >> 21


def pair_table(pairs: dict[tuple[int, int], int]) -> list[int]:
    """Open addressing, linear probing: slots of (first, second, composite), all zero when free."""
    slots: list[tuple[int, int, int]] = [(0, 0, 0)] * PAIR_SLOTS
    for (first, second), composite in sorted(pairs.items()):
        slot = pair_slot(first, second)
        while slots[slot] != (0, 0, 0):
            slot = (slot + 1) % PAIR_SLOTS
        slots[slot] = (first, second, composite)
    return [value for slot in slots for value in slot]


def lower_case() -> tuple[list[int], list[int], dict[int, tuple[int, ...]]]:
    """For each code point the number of its step; the steps (lower minus upper); and the longer lower cases."""
    steps, several = {0: 0}, {}
    which = []
    for point in CODE_POINTS:
        lowered = tuple(map(ord, chr(point).lower()))
        if len(lowered) > 1:
            several[point] = lowered
            which.append(0)
        else:
            which.append(steps.setdefault(lowered[0] - point, len(steps)))
    return which, list(steps), several


def decompositions() -> tuple[list[int], list[int]]:
    """For each code point the place of its decomposition in a pool, 0 for none; there: a length, then the points."""
    pool, known, where = [0], {}, []
    for point in CODE_POINTS:
        expanded = full_decomposition(point)
        if expanded and expanded not in known:
            known[expanded] = len(pool)
            pool += [len(expanded), *expanded]
        where.append(known[expanded] if expanded else 0)
    return where, pool


def tables() -> str:
    pairs = primary_pairs()
    flags = word_flags({second for _, second in pairs})
    which, steps, several = lower_case()
    assert several == {0x130: (0x69, 0x307)}, "unicode.cpp knows one lower case of two code points"
    where, pool = decompositions()
    combining = [unicodedata.combining(chr(point)) for point in CODE_POINTS]
    return "\n".join(
        [
            f"// Unicode {VERSION}; written by tools/make_unicode_tables.py, not by hand.",
            "// clang-format off",
            f'inline constexpr char version[] = "{VERSION}";',
            staged("flags", flags),
            staged("lower", which),
            array("lower_step", steps, "std::int32_t"),
            staged("combining", combining),
            staged("decomposition", where),
            array("decomposition_pool", pool),
            f"// {len(pairs)} pairs (first, second, composite)",
            array("pairs", pair_table(pairs)),
            "// clang-format on",
            "",
        ]
    )


def normal_form(word: str) -> bytes:
    return "".join(char.lower() for char in unicodedata.normalize("NFKC", word)).encode()


def digest(texts: Iterable[bytes]) -> int:
    """FNV-1a over the texts, each ended by a zero byte."""
    value = 0xCBF29CE484222325
    for text in texts:
        for byte in (*text, 0):
            value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def sequences(points: Sequence[int], count: int) -> Iterable[str]:
    """Words of 2 to 5 of the points, chosen by the generator that test_unicode.cpp repeats."""
    state = 1

    def choose(limit: int) -> int:
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        return (state >> 33) % limit

    for _ in range(count):
        length = 2 + choose(4)
        yield "".join([chr(points[choose(len(points))]) for _ in range(length)])


def expectations() -> str:
    """What a correct implementation of the tables comes to, for tests/csrc/test_unicode.cpp."""
    pairs = primary_pairs()
    flags = word_flags({second for _, second in pairs})
    unstable = [point for point in CODE_POINTS if flags[point] & UNSTABLE]
    joining = sorted({point for pair in pairs for point in pair} | set(range(0x1100, 0x1200)))
    singles = [normal_form(chr(point)) for point in CODE_POINTS if not is_surrogate(point)]
    numbers = {
        "flags_digest": digest([bytes(flags)]),
        "single_digest": digest(singles),
        "unstable_digest": digest(map(normal_form, sequences(unstable, SEQUENCES))),
        "joining_digest": digest(map(normal_form, sequences(joining, SEQUENCES))),
    }
    lines = [f"inline constexpr std::uint64_t {name} = {value:#018x};" for name, value in numbers.items()]
    return "\n".join(
        [
            f"// Unicode {VERSION}; written by tools/make_unicode_tables.py, not by hand.",
            "// clang-format off",
            f"inline constexpr std::size_t sequences = {SEQUENCES};",
            *lines,
            array("joining", joining, "char32_t"),
            "// clang-format on",
            "",
        ]
    )


def main() -> None:
    if unicodedata.unidata_version != VERSION:
        sys.exit(
            f"this Python knows Unicode {unicodedata.unidata_version}, the tables are of {VERSION}: use Python 3.13"
        )
    (ROOT / "csrc/text/unicode_tables.inc").write_text(tables(), encoding="ascii")
    (ROOT / "tests/csrc/unicode_expected.inc").write_text(expectations(), encoding="ascii")


if __name__ == "__main__":
    main()
