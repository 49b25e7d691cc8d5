"""The loader against plain Python, over every split of a step; and its place in other people's loops."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from phi_fast.errors import InputError  # noqa: E402
from phi_fast.model.documents import check_bounds, document_bounds  # noqa: E402
from phi_fast.train import Loader, TokenStore  # noqa: E402
from tests.train.support import store  # noqa: E402


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[TokenStore]:
    rng = np.random.default_rng(2)
    folder = tmp_path_factory.mktemp("stores")
    made = [store(folder / "a", rng.integers(1, 60, 100).tolist(), shard_tokens=300, seed=1)]
    return [*made, store(folder / "b", rng.integers(1, 60, 40).tolist(), shard_tokens=200, seed=2)]


def naive(stores: list[TokenStore], loader: Loader, step: int) -> list[list[int]]:
    """The sequences of a step, one after the other."""
    rows = []
    for place in range(loader.split.batch):
        number, _, window = (int(one[0]) for one in loader.order.at(np.array([step * loader.split.batch + place])))
        everything = [int(one) for one in stores[number][:]]
        rows.append(everything[window * loader.length : (window + 1) * loader.length])
    return rows


def test_every_split_gives_the_sequences_of_the_plain_twin(stores: list[TokenStore]) -> None:
    whole = Loader(stores, length=16, batch=8, weights=[3, 1], seed=5)
    for step in (0, 7, 123):
        wanted = naive(stores, whole, step)
        assert whole.step(step).parts[0].ids.tolist() == wanted
        for world, micro in ((1, 1), (1, 4), (2, 2), (2, 4), (4, 1), (8, 1)):
            ranks = [
                Loader(stores, length=16, batch=8, micro=micro, world=world, rank=rank, weights=[3, 1], seed=5)
                for rank in range(world)
            ]
            steps = [one.step(step) for one in ranks]
            dealt = [
                row for part in range(ranks[0].split.parts) for one in steps for row in one.parts[part].ids.tolist()
            ]
            assert dealt == wanted
            assert steps[0].parts[0].ids.dtype == torch.int64 and steps[0].parts[0].ids.is_contiguous()


def test_going_on_is_the_same_as_not_having_stopped(stores: list[TokenStore]) -> None:
    loader = Loader(stores, length=16, batch=6, micro=2, prefetch=3)
    walked = list(loader.steps(0, 60))
    assert [one.number for one in walked] == list(range(60)) and len(walked[0].parts) == 3
    resumed = list(Loader(stores, length=16, batch=6, micro=2).steps(41, 60))
    for one, other in zip(walked[41:], resumed, strict=True):
        assert all(torch.equal(a.ids, b.ids) for a, b in zip(one.parts, other.parts, strict=True))
    assert loader.epochs(0) == [0, 0]
    assert loader.epochs(loader.windows) == [6, 6]


def test_an_epoch_holds_every_token_once(stores: list[TokenStore]) -> None:
    one = stores[0]
    loader = Loader(one, length=16, batch=1)
    seen = np.concatenate([step.parts[0].ids.numpy() for step in loader.steps(0, loader.windows)])
    whole = one[: loader.windows * 16].reshape(-1, 16)
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, whole.tolist()))


def test_targets_and_documents(stores: list[TokenStore]) -> None:
    loader = Loader(stores, length=24, batch=4, targets=True, mask_documents=True)
    plain = Loader(stores, length=24, batch=4, targets=True)
    for step in range(30):
        ids, targets, bounds = loader.step(step).parts[0]
        assert torch.equal(bounds, document_bounds(ids, 0)) and bounds.dtype == torch.int32
        check_bounds(bounds, 4, 24)
        where = loader.order.at(loader.split.samples(step, 0))
        following = np.stack([stores[s][w * 24 + 1 : w * 24 + 25] for s, _, w in zip(*where, strict=True)]).astype(int)
        assert np.array_equal(plain.step(step).parts[0].targets.numpy(), following)
        assert np.array_equal(targets.numpy(), np.where(ids.numpy() == 0, -100, following))
        inside = [start for start in bounds.tolist()[:-1] if start % 24]
        known = [
            row * 24 + int(one) - int(w) * 24
            for row, (s, _, w) in enumerate(zip(*where, strict=True))
            for one in stores[s].starts(w * 24 + 1, (w + 1) * 24)
        ]
        assert inside == known


def test_the_documents_of_a_step_are_named(stores: list[TokenStore]) -> None:
    loader = Loader(stores, length=16, batch=8, micro=2, world=2, rank=1)
    for step in (0, 9):
        parts, held = loader.step(step).parts, loader.documents(step)
        rebuilt = torch.full((2, 2, 16), -1)
        for one in held:
            (of,) = [each for each in stores if each.folder.name == one.store]
            whole = of.documents_in(one.place, one.place + 1)[0]
            assert (whole.file, whole.row, whole.start) == (one.file, one.line, one.place)
            piece = parts[one.part].ids[one.row, one.start : one.stop].tolist()
            begins = range(whole.start, whole.stop - len(piece) + 1)
            assert any(of[begin : begin + len(piece)].tolist() == piece for begin in begins)
            rebuilt[one.part, one.row, one.start : one.stop] = parts[one.part].ids[one.row, one.start : one.stop]
        assert torch.equal(rebuilt, torch.stack([part.ids for part in parts]))  # no place without its document
        assert loader.documents(step, 1) == [one for one in held if one.part == 1]
        assert held[0].file in str(held[0]) and f"row {held[0].line}" in str(held[0])


def test_the_thread_ends_and_tells_what_went_wrong(stores: list[TokenStore], monkeypatch: pytest.MonkeyPatch) -> None:
    def threads() -> int:
        return sum(one.name == "phi-fast-loader" for one in threading.enumerate())

    loader = Loader(stores, length=16, batch=2, prefetch=1)
    steps = loader.steps()
    next(steps)
    assert threads() == 1
    steps.close()  # type: ignore[attr-defined]
    assert threads() == 0
    real = loader.step

    def step(number: int) -> Any:
        if number == 3:
            raise OSError("the disk is gone")
        return real(number)

    monkeypatch.setattr(loader, "step", step)
    seen = []
    with pytest.raises(OSError, match="the disk is gone"):
        for one in loader.steps():
            seen.append(one.number)
    assert seen == [0, 1, 2] and threads() == 0


def test_what_is_refused(stores: list[TokenStore], tmp_path: Path) -> None:
    other = store(tmp_path / "other", [50] * 9, vocabulary=77)
    with pytest.raises(InputError, match=r"its tokens are of another tokenizer than .*other"):
        Loader([*stores, other], length=16, batch=2)
    with pytest.raises(InputError, match="a vocabulary of 1,000 tokens for a model of 512 rows"):
        Loader(stores, length=16, batch=2, vocabulary=512)
    with pytest.raises(InputError, match="other: 450 tokens, too few for one sequence of 451"):
        Loader(other, length=451, batch=2)
    with pytest.raises(InputError, match="other: 450 tokens, too few"):
        Loader(other.folder, length=450, batch=2, targets=True)
    assert Loader(other.folder, length=450, batch=2).windows == 1
    with pytest.raises(InputError, match=r"batch 5: no multiple of 2 \(world\)"):
        Loader(stores, length=16, batch=5, world=2)
    with pytest.raises(InputError, match="first -1"):
        next(Loader(stores, length=16, batch=2).steps(-1))
    with pytest.raises(InputError, match="stores: give one or more"):
        Loader([], batch=2)


def test_in_a_loader_of_torch(stores: list[TokenStore]) -> None:
    from torch.utils.data import DataLoader

    from phi_fast.train.for_trainer import Sequences

    loader = Loader(stores, length=16, batch=4)
    found = [one["input_ids"] for one in DataLoader(Sequences(loader, 2, 5), batch_size=4)]
    assert all(torch.equal(a, b.parts[0].ids) for a, b in zip(found, loader.steps(2, 5), strict=True))
    with pytest.raises(InputError, match="give 0"):
        next(iter(DataLoader(Sequences(loader, 0, 2), batch_size=4, num_workers=1)))
    with pytest.raises(InputError, match="world 1"):
        Sequences(Loader(stores, length=16, batch=4, world=2))


def test_trainer_deals_out_as_a_split_does(stores: list[TokenStore]) -> None:
    shards = pytest.importorskip("accelerate.data_loader")
    from phi_fast.train.for_trainer import Sequences

    whole = Loader(stores, length=16, batch=8)
    for rank in range(2):
        mine = Loader(stores, length=16, batch=8, micro=2, world=2, rank=rank)
        dealt = shards.IterableDatasetShard(Sequences(whole, 3, 5), batch_size=2, num_processes=2, process_index=rank)
        wanted = [row for step in (3, 4) for part in mine.step(step).parts for row in part.ids]
        found = [one["input_ids"] for one in dealt]
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_reading_tokens_needs_numpy_alone(stores: list[TokenStore]) -> None:
    """A machine that only trains need not have what reads corpora, nor the compiled engines."""
    code = (
        "import sys, phi_fast.train as t; loader = t.Loader(sys.argv[1], length=16, batch=4); loader.documents(3); "
        "print(*(name for name in sys.modules if name.partition('.')[0] in ('torch', 'pyarrow', 'tokenizers')"
        " or name == 'phi_fast._native'))"
    )
    command = [sys.executable, "-c", code, stores[0].folder]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == ""
