"""Trees of source files."""

from __future__ import annotations

from pathlib import Path

import pytest

from phi_fast.corpus import Buffer, Files, discover, read, units
from phi_fast.errors import RunError
from tests.corpus.support import read_whole


def _tree(root: Path, count: int = 50) -> Path:
    for i in range(count):
        path = root / f"p{i % 7}" / f"m{i:03}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {i}\n" * i)
    return root


@pytest.mark.parametrize("unit_bytes", [1, 300, 1 << 20])
def test_every_file_once_in_order(tmp_path: Path, unit_bytes: int) -> None:
    (source,) = discover([str(_tree(tmp_path / "t"))])
    (whole,) = read_whole([source], unit_bytes)
    assert whole.texts == [(tmp_path / "t" / name).read_text() for name in source.files] and len(whole.texts) == 50
    assert not whole.rejected
    sizes = [unit.size for unit, _ in units(0, source, unit_bytes=unit_bytes)]
    assert sum(sizes) == source.size and (len(sizes) == 1) == (unit_bytes == 1 << 20)


def test_binary_and_forbidden_files_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _tree(tmp_path / "t", 3)
    (root / "a.py").write_bytes(b"x = 1\0\n")
    (root / "b.py").write_bytes(b"not \xff UTF-8")
    (source,) = discover([str(root)])
    (whole,) = read_whole([source], 1 << 20)
    assert whole.rejected == [(0, "binary: NUL byte at byte 5")]
    assert source.files[:2] == ("a.py", "b.py")

    from phi_fast.corpus import trees

    def forbidden(path: str) -> object:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(trees, "open_raw", forbidden)
    batch = read(next(units(0, source))[0], source, Buffer())
    assert isinstance(batch, Files) and batch.rejected[1] == (1, -1, -1, "cannot be read: Permission denied")


def test_a_vanished_or_modified_file_is_a_run_error(tmp_path: Path) -> None:
    root = _tree(tmp_path / "t", 5)
    (source,) = discover([str(root)])
    (unit, _), *_ = units(0, source)
    (root / "p3/m003.py").write_text("longer than it was, quite certainly\n")
    with pytest.raises(RunError, match=r"p3/m003\.py was modified during the run: start again"):
        read(unit, source, Buffer())
    (root / "p3/m003.py").unlink()
    with pytest.raises(RunError, match=r"p3/m003\.py vanished during the run: put it back"):
        read(unit, source, Buffer())
