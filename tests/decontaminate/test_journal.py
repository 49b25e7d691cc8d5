"""The journal: what was written is read back, whatever a kill or a full disk left of the file."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from phi_fast.decontaminate.journal import Journal
from phi_fast.errors import RunError

RUN = {"settings": "abc"}
COUNTS = {"rows": 3, "rejected": 1}


def fill(path: Path, units: int = 3) -> None:
    with Journal(path, RUN) as journal:
        for unit in range(units):
            journal.add_unit(0, unit, COUNTS, [b"x" * unit, b"", bytes(range(unit))], last=unit == units - 1)
        journal.add_source("scanned", 0, {"note": "done"})


def parts(journal: Journal, unit: int) -> list[bytes]:
    return [bytes(part) for part in journal.unit(0, unit, range(3))[1]]


def test_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "journal.bin"
    fill(path)
    with Journal(path, RUN) as journal:
        assert set(journal.units) == {(0, 0), (0, 1), (0, 2)}
        assert journal.totals == {"rows": 9, "rejected": 3}
        assert journal.lengths == {0: 3}
        assert journal.sources == {"scanned": {0: {"note": "done"}}}
        assert parts(journal, 2) == [b"xx", b"", b"\0\1"]
        assert journal.unit(0, 2, (0,))[0] == COUNTS
        assert [bytes(part) for part in journal.unit(0, 2, (2,))[1]] == [b"", b"", b"\0\1"]


def test_every_torn_tail_is_cut_off(tmp_path: Path) -> None:
    """Cut the file at each byte: what is whole before the cut is there, and writing goes on behind it."""
    path = tmp_path / "journal.bin"
    fill(path)
    whole = path.read_bytes()
    with Journal(path, RUN) as journal:
        places = sorted(journal.units.values())
    ends = [*places[1:], whole.rfind(b"PFJ1"), len(whole)]  # where each unit's record ends, then the source's
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with Journal(path, RUN) as journal:
            assert len(journal.units) == sum(end <= size for end in ends[:3])
            assert bool(journal.sources) == (size >= len(whole))
            journal.add_unit(7, 0, COUNTS, [b"after", b"", b""], last=True)
        with Journal(path, RUN) as journal:
            assert bytes(journal.unit(7, 0, (0,))[1][0]) == b"after"


def test_a_flipped_bit_ends_the_journal_there(tmp_path: Path) -> None:
    path = tmp_path / "journal.bin"
    fill(path)
    whole = path.read_bytes()
    with Journal(path, RUN) as journal:
        last = journal.units[0, 2]
    for at in range(last, len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        path.write_bytes(damaged)
        with Journal(path, RUN) as journal:
            assert (0, 1) in journal.units
            assert not ((0, 2) in journal.units and journal.sources)


def test_another_runs_journal_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "journal.bin"
    fill(path)
    with Journal(path, {"settings": "other"}) as journal:
        assert not journal.units
    with Journal(path, RUN) as journal:
        assert not journal.units


def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "run" / "journal.bin"
    path.parent.mkdir()
    with Journal(path, RUN), pytest.raises(RunError, match="another phi-fast is working on this run"):
        Journal(path, RUN)
    Journal(path, RUN).close()


def test_a_full_disk_leaves_it_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.bin"
    with Journal(path, RUN) as journal:
        journal.add_unit(0, 0, COUNTS, [b"kept"], last=False)
        write = os.pwritev

        def half(fd: int, buffers: list[bytes], offset: int) -> int:
            if offset > journal._end:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(fd, [buffers[0][:5]], offset)

        monkeypatch.setattr(os, "pwritev", half)
        with pytest.raises(RunError, match=r"No space left on device. Nothing is lost: make room, then give the same"):
            journal.add_unit(0, 1, COUNTS, [b"lost"], last=True)
        monkeypatch.undo()
        journal.add_unit(0, 1, COUNTS, [b"again"], last=True)
    with Journal(path, RUN) as journal:
        assert bytes(journal.unit(0, 0, (0,))[1][0]) == b"kept"
        assert bytes(journal.unit(0, 1, (0,))[1][0]) == b"again"


def test_many_threads_append(tmp_path: Path) -> None:
    path = tmp_path / "journal.bin"
    with Journal(path, RUN) as journal:

        def work(source: int) -> None:
            for unit in range(50):
                journal.add_unit(source, unit, COUNTS, [b"%d-%d" % (source, unit) * 100], last=unit == 49)

        threads = [threading.Thread(target=work, args=(source,)) for source in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with Journal(path, RUN) as journal:
        assert len(journal.units) == 400
        assert all(
            bytes(journal.unit(source, unit, (0,))[1][0]) == b"%d-%d" % (source, unit) * 100
            for source, unit in journal.units
        )
