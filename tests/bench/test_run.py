"""A whole run: what is written, what a second one leaves alone, what ends it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from phi_fast.bench import run as running
from phi_fast.bench.charts import draw_errors, draw_rates
from phi_fast.bench.limits import Limits
from phi_fast.bench.ops import DTYPES, EAGER, OPS, OURS, Op, rival
from phi_fast.bench.rows import FAILED, Row, joined, read_rows, write_rows
from phi_fast.bench.run import Settings, dtypes_of, failures, run, select
from phi_fast.bench.tables import Heading, footnotes, terminal_tables, write_markdown
from phi_fast.errors import InputError
from tests.bench.support import ROW, make_op


class Watch:
    def __init__(self) -> None:
        self.cases = 0
        self.fresh: list[Row] = []
        self.told: list[str] = []

    def begin(self, cases: int) -> None:
        self.cases = cases

    def case(self, op: str, case: str, dtype: str) -> None:
        self.told.append(f"{op}, {case}, {dtype}")

    def advance(self, rows: Sequence[Row]) -> None:
        self.fresh += rows

    def finished(self, op: Op, rows: Sequence[Row]) -> None:
        self.told.append(f"{op.name}: {len(rows)}")


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let timings on the CPU be short, and its limits known."""
    monkeypatch.setattr(running, "measure_limits", lambda device: Limits(10.0, dict.fromkeys(DTYPES, 0.1)))


def settings(folder: Path, **changes: object) -> Settings:
    return Settings(**({"device": "cpu", "dtypes": ["fp32"], "output": folder, "budget": 0.0} | changes))  # type: ignore[arg-type]


def test_a_run_writes_tables_and_charts_and_a_second_measures_nothing(tmp_path: Path, timed: None) -> None:
    one = make_op()
    first = Watch()
    rows = run([one], settings(tmp_path), first)
    assert first.cases == 2 and first.told[0] == "softmax, rows 4, width 8, fp32" and first.told[-1] == "softmax: 12"
    assert {(row.implementation, row.phase) for row in rows} == {
        (name, phase) for name in (OURS, EAGER) for phase in ("forward", "backward", "both")
    }
    assert all(row.median_ms and row.share and row.date for row in rows)
    assert {row.verdict for row in rows if row.phase != "both"} == {"PASS"}
    page = (tmp_path / "kernels.md").read_text()
    assert "phi_fast keeps the rule in 4 of 4 measurements." in page and "Measured limits: copy 10 GB/s" in page
    assert page.count("**phi_fast**") == 6 and rows[0].machine in page and rows[0].versions in page
    for name in ("softmax_fp32.png", "errors.png"):
        picture = (tmp_path / name).read_bytes()
        assert picture.startswith(b"\x89PNG") and len(picture) > 8_000
    kept = (tmp_path / "kernels.csv").read_bytes()

    second = Watch()
    assert len(run([one], settings(tmp_path), second)) == 12 and second.fresh == []
    assert (tmp_path / "kernels.csv").read_bytes() == kept

    rival("softmax", name="new")(lambda x: x.softmax(-1))
    third = Watch()
    run([one], settings(tmp_path), third)
    assert {row.implementation for row in third.fresh} == {"new"} and len(third.fresh) == 6

    fourth = Watch()
    run([one], settings(tmp_path, again=True), fourth)
    assert len(fourth.fresh) == 18
    assert len(read_rows(tmp_path / "kernels.csv")) == 18


def test_what_failed_is_tried_again_and_other_machines_rows_stay(tmp_path: Path, timed: None) -> None:
    one = make_op()
    write_rows(tmp_path / "kernels.csv", [ROW])
    broken = True

    @rival("softmax", name="sometimes")
    def sometimes(x: torch.Tensor) -> torch.Tensor:
        if broken:
            raise RuntimeError("not today")
        return x.softmax(-1)

    rows = run([one], settings(tmp_path), Watch())
    assert {row.status for row in rows if row.implementation == "sometimes"} == {FAILED}
    assert {row.implementation for row in failures(rows)} == {"sometimes"}
    assert "not today" in (tmp_path / "kernels.md").read_text()
    broken = False
    rows = run([one], settings(tmp_path), Watch())
    assert failures(rows) == []
    kept = read_rows(tmp_path / "kernels.csv")
    assert kept[0] == ROW and len(kept) == 1 + len(rows) == 19
    assert "not today" not in (tmp_path / "kernels.md").read_text()


def test_control_c_leaves_what_there_is(tmp_path: Path, timed: None) -> None:
    one = make_op()

    class Impatient(Watch):
        def case(self, op: str, case: str, dtype: str) -> None:
            if "rows 16" in case:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([one], settings(tmp_path), Impatient())
    assert {row.case for row in read_rows(tmp_path / "kernels.csv")} == {"rows 4, width 8"}
    assert "rows 4, width 8" in (tmp_path / "kernels.md").read_text()


def test_passes_and_interpreted_cases(tmp_path: Path, timed: None) -> None:
    one = make_op()
    rows = run([one], settings(tmp_path / "a", passes=["both"]), Watch())
    assert {row.phase for row in rows} == {"both"}
    rows = run([one], settings(tmp_path / "b", interpreted=True, dtypes=None), Watch())
    assert {row.dtype for row in rows} == {"fp32", "fp16"} and {row.phase for row in rows} == {"forward", "backward"}
    assert all(row.median_ms is None and row.max_error is not None for row in rows)
    assert "Triton's interpreter on" in (tmp_path / "b/kernels.md").read_text()
    assert not list((tmp_path / "b").glob("softmax*.png"))


def test_what_cannot_be_measured_is_named() -> None:
    with pytest.raises(InputError, match='--op: no op "atention"; known are attention'):
        select(["atention"])
    assert [one.name for one in select(["rotary", "layer_norm"])] == ["layer_norm", "rotary"]
    with pytest.raises(InputError, match="--dtype: bf16 needs a GPU"):
        dtypes_of(Settings(interpreted=True, dtypes=["bf16"]))
    with pytest.raises(InputError, match='expected one of fp16, bf16, fp32, got "fp8"'):
        dtypes_of(Settings(dtypes=["fp8"]))


def test_rows_survive_their_file(tmp_path: Path) -> None:
    rows = [
        ROW,
        Row(*("a,b", 'c "d"', "fp16", "both", "x"), status=FAILED, reason="line | of, words", median_ms=0.123456789),
        Row(*("a", "b", "fp16", "both", "y"), max_error=float("nan")),
    ]
    write_rows(tmp_path / "k.csv", rows)
    found = read_rows(tmp_path / "k.csv")
    assert found[0] == ROW and found[1].reason == "line | of, words" and found[1].median_ms == 0.123457
    assert found[2].max_error != found[2].max_error
    assert (tmp_path / "k.csv").read_text().startswith("op,case,dtype,pass,implementation,status")
    assert read_rows(tmp_path / "none.csv") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "what,else\n", "line 1 is not the heading"),
        (lambda text: text + "short,row\n", "line 3 has 2 fields"),
        (lambda text: text.replace("measured,,,", "measured,,fast,"), "line 2: could not convert"),
    ],
)
def test_a_spoiled_file_is_named(tmp_path: Path, change: object, message: str) -> None:
    path = tmp_path / "k.csv"
    write_rows(path, [ROW])
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        read_rows(path)


def test_rows_of_one_key_are_joined() -> None:
    import dataclasses

    time = dataclasses.replace(ROW, median_ms=2.0)
    error = dataclasses.replace(ROW, verdict="FAIL", reason="too wrong", max_error=1.0)
    (one,) = joined([time], [error])
    assert (one.median_ms, one.verdict, one.reason, one.max_error) == (2.0, "FAIL", "too wrong", 1.0)
    (one,) = joined([time], [dataclasses.replace(ROW, status=FAILED, reason="raised")])
    assert one.status == FAILED and one.median_ms == 2.0


def test_tables_say_what_is_not_in_them(tmp_path: Path) -> None:
    import dataclasses

    make_op()
    rows = [
        dataclasses.replace(ROW, median_ms=1.5, low_ms=1.4, high_ms=1.6, gbs=1234.5, share=0.876, peak_mb=12.3),
        dataclasses.replace(ROW, implementation="x", status="missing", reason="x is not installed"),
        dataclasses.replace(ROW, implementation="y", status=FAILED, reason="RuntimeError: a | b"),
        dataclasses.replace(ROW, implementation="z", checked="rows 1", verdict="PASS", max_error=1e-7),
    ]
    assert footnotes(rows) == [
        "x: x is not installed",
        "y, forward: RuntimeError: a | b (rows 4, width 8, fp32)",
        "errors measured at: rows 1",
    ]
    write_markdown(tmp_path / "k.md", Heading("M", "V", False, "copy 1", ["mine.py:3: broken"]), rows)
    page = (tmp_path / "k.md").read_text()
    line = next(line for line in page.splitlines() if "**phi_fast**" in line)
    assert "1.5 (1.4-1.6)" in line and "1,234 GB/s" in line and "88%" in line and "| 12 |" in line
    assert "a \\| b" in page and "Not loaded: mine.py:3: broken" in page and "M; V; 2026-11-24." in page
    for width, wanted in ((80, False), (160, True)):
        (table,) = terminal_tables(rows, False, width)
        times = list(table.columns[2].cells)
        assert ("1.5 (1.4-1.6)" in times) is wanted and times[1:] == ["", ""]


def test_charts_hold_the_data(tmp_path: Path) -> None:
    one = OPS["attention"]
    rows = [
        Row("attention", case.label, "bf16", phase, name, tflops=100.0 + at, gbs=1.0, share=0.5, median_ms=1.0)
        for at, case in enumerate(one.cases)
        for phase in ("forward", "both")
        for name in (OURS, "SDPA")
    ]
    figure = draw_rates(one, rows, tmp_path / "a.png")
    assert len(figure.axes) == 4  # two passes, two head dimensions
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert set(lines) == {OURS, "SDPA", "limit"}
    assert [*map(float, lines[OURS].get_xdata())] == [512, 1024, 2048, 4096, 8192]
    assert [*map(float, lines[OURS].get_ydata())] == [100, 101, 102, 103, 104]
    assert [*map(float, lines["limit"].get_ydata())] == [200, 202, 204, 206, 208]
    assert figure.axes[0].get_ylabel().startswith("TFLOP/s")
    wrong = [
        Row("attention", "c", "fp16", phase, OURS, max_error=0.5, eager_max_error=0.25) for phase in ("forward", "both")
    ]
    figure = draw_errors(wrong, tmp_path / "e.png")
    assert [*map(float, figure.axes[0].get_lines()[0].get_xdata())] == [2.0, 2.0]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == [
        "attention, output",
        "attention, gradients",
    ]
