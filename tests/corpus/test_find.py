"""What `discover` makes of files, folders, globs and URLs, and what it says when it cannot."""

from __future__ import annotations

import json
import os
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phi_fast.corpus import discover
from phi_fast.errors import InputError
from tests.corpus.support import CODECS, documents, jsonl, pack, read_whole, write_jsonl


@pytest.mark.parametrize("codec", [None, *CODECS])
@pytest.mark.parametrize("stem", ["a.jsonl", "a.json", "a.ndjson"])
def test_lines_of_every_ending(tmp_path: Path, stem: str, codec: str | None) -> None:
    path = write_jsonl(tmp_path / (stem + (f".{codec}" if codec else "")), documents(5), codec)
    (source,) = discover([str(path)])
    assert (source.format, source.compression, source.text, source.id) == ("jsonl", codec, "text", "id")
    assert source.path == str(path) and source.name == path.name and source.size == path.stat().st_size


@pytest.mark.parametrize("key", ["text", "content", "code"])
def test_text_key_is_found(tmp_path: Path, key: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"meta": "m", key: "x"}) + "\n")
    (source,) = discover([str(tmp_path)])
    assert source.text == key and source.id is None


def test_text_before_content_and_strings_before_objects(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"content": "c", "text": {"not": "a string"}, "code": "d"}\n')
    assert discover([str(tmp_path)])[0].text == "content"
    (tmp_path / "a.jsonl").write_text('{"code": "c", "text": "t"}\n')
    assert discover([str(tmp_path)])[0].text == "text"


def test_missing_column_lists_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "x", "n": 1}\n')
    with pytest.raises(
        InputError, match=r"a\.jsonl: no text column among text, content, code\. It has: body \(string\)"
    ):
        discover([str(path)])
    with pytest.raises(InputError, match=r'no column "boddy"\. It has: body \(string\), n \(number\)'):
        discover([str(path)], text="boddy")
    with pytest.raises(InputError, match=r'column "n" is number, not text'):
        discover([str(path)], text="n")
    with pytest.raises(InputError, match='no id column "key"'):
        discover([str(path)], text="body", id="key")
    assert discover([str(path)], text="body", id="n")[0].id == "n"


def test_missing_parquet_column(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": ["x"], "tags": [["a"]]}), path)
    with pytest.raises(InputError, match=r"It has: body \(string\), tags \(list<"):
        discover([str(path)])
    with pytest.raises(InputError, match=r'"tags" is list<.*, not text'):
        discover([str(path)], text="tags")
    with pytest.raises(InputError, match="cannot be the id"):
        discover([str(path)], text="body", id="tags")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("nowhere.jsonl", "no such file or folder"),
        ("*.jsonl", "no file matches"),
        ("[", "no file matches"),
        ("table.csv", "cannot tell what it is by its ending"),
        ("*.csv", "none of the 1 files that match has a known ending"),
        ("empty", "no corpus files"),
        ("unknownscheme://x/y.jsonl", "unknownscheme"),
    ],
)
def test_nothing_found(tmp_path: Path, given: str, says: str) -> None:
    (tmp_path / "table.csv").write_text("a,b\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=says):
        discover([given if "://" in given else str(tmp_path / given)])


def test_no_paths() -> None:
    with pytest.raises(InputError, match="no corpus"):
        discover([])


@pytest.mark.parametrize("start", [b"[\n", b'[{"text": "a"}]', b" \n [1]"])
def test_one_json_array_is_refused_with_the_way_out(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "a.json").write_bytes(start)
    with pytest.raises(InputError, match=r"one JSON array.*jq -c"):
        discover([str(tmp_path / "a.json")])


def test_utf16_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n', encoding="utf-16")
    with pytest.raises(InputError, match="UTF-16"):
        discover([str(tmp_path)])


def test_the_bytes_tell_the_codec_where_the_name_does_not(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", documents(3), "zst")
    write_jsonl(tmp_path / "b.jsonl.gz", documents(3), None)
    first, second = discover([str(tmp_path)])
    assert (first.compression, second.compression) == ("zst", None)
    assert [whole.texts for whole in read_whole([first, second], 100)] == [[d["text"] for d in documents(3)]] * 2


def test_a_mixed_folder_file_by_file(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "sub/b.jsonl", documents(2))
    write_jsonl(tmp_path / "a.jsonl.gz", documents(2), "gz")
    pq.write_table(pa.table({"content": ["x"]}), tmp_path / "c.parquet")
    write_jsonl(tmp_path / ".hidden/b.jsonl", documents(2))
    (tmp_path / "readme.md").write_text("hello")
    (tmp_path / "prepare.py").write_text("pass")
    (tmp_path / "info.json").write_text('{"a": 1}')
    (tmp_path / "pretty.json").write_text('{\n  "text": "a"\n}')
    write_jsonl(tmp_path / "more.json", documents(1))
    notes: list[str] = []
    sources = discover([str(tmp_path)], note=notes.append)
    assert [(s.name, s.format) for s in sources] == [
        ("a.jsonl.gz", "jsonl"),
        ("c.parquet", "parquet"),
        ("more.json", "jsonl"),
        ("sub/b.jsonl", "jsonl"),
    ]
    assert len(notes) == 1 and notes[0].startswith("2 .json files hold no lines with a text")


def test_a_folder_of_source_files_is_a_tree(tmp_path: Path) -> None:
    root = tmp_path / "pkg"
    for name in ("z.py", "sub/a.py", "sub/deep/b.py", ".git/c.py", "d.txt", "settings.json"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}" if name.endswith("json") else f"# {name}\n")
    (source,) = discover([str(root)])
    assert (source.name, source.format, source.path) == ("pkg", "tree", str(root))
    assert source.files == ("sub/a.py", "sub/deep/b.py", "z.py")
    assert source.size == sum(source.sizes) == sum((root / name).stat().st_size for name in source.files)
    assert discover([str(root)], pattern="*.txt")[0].files == ("d.txt",)
    assert discover([str(root)], pattern="sub/*.py")[0].files == ("sub/a.py",)
    with pytest.raises(InputError, match=r"no files matching \*\.rs"):
        discover([str(root)], pattern="*.rs")


def test_a_bare_source_file_and_a_glob_of_them(tmp_path: Path) -> None:
    for name in ("a.py", "b.py", "sub/c.py"):
        (tmp_path / "pkg" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pkg" / name).write_text("x = 1\n")
    (source,) = discover([str(tmp_path / "pkg/b.py")])
    assert (source.name, source.files) == ("pkg", ("b.py",))
    (source,) = discover([str(tmp_path / "pkg/**/*.py")])
    assert (source.name, source.files) == ("pkg", ("a.py", "b.py", "sub/c.py"))


def test_code_with_a_data_file_in_it_is_not_guessed(tmp_path: Path) -> None:
    for i in range(11):
        (tmp_path / f"m{i}.py").write_text("pass")
    write_jsonl(tmp_path / "data/x.jsonl", documents(1))
    with pytest.raises(InputError, match=r"11 \.py files and 1 corpus files.*--pattern"):
        discover([str(tmp_path)])
    assert len(discover([str(tmp_path)], pattern="**/*.py")[0].files) == 11


def test_names_are_unique_and_in_order(tmp_path: Path) -> None:
    for folder in ("x/one", "x/two"):
        write_jsonl(tmp_path / folder / "part.jsonl", documents(1))
    both = discover([str(tmp_path / "x/two"), str(tmp_path / "x/one")])
    assert [s.name for s in both] == ["one/part.jsonl", "two/part.jsonl"]
    again = discover([str(tmp_path / "x/one"), str(tmp_path / "x/*/part.jsonl"), str(tmp_path / "x/two/part.jsonl")])
    assert [s.path for s in again] == [s.path for s in both]
    files = discover([str(tmp_path / "x/one/part.jsonl"), str(tmp_path / "x/two/part.jsonl")])
    assert [s.name for s in files] == ["one/part.jsonl", "two/part.jsonl"]
    assert [s.name for s in discover([str(tmp_path / "x")])] == ["one/part.jsonl", "two/part.jsonl"]


def test_a_file_inside_a_tree_of_the_same_corpus_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t/a.py").write_text("pass")
    write_jsonl(tmp_path / "t/t/a.jsonl", documents(1))
    with pytest.raises(InputError, match="name one of the two"):
        discover([str(tmp_path / "t/*.py"), str(tmp_path / "t/**/*.jsonl")])


def test_a_name_with_glob_signs_is_taken_as_it_is(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a[1].jsonl", documents(1))
    assert discover([str(tmp_path / "a[1].jsonl")])[0].name == "a[1].jsonl"


def test_linked_folders_are_left_out_aloud_and_linked_files_are_read(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "blobs/0123", documents(1))
    write_jsonl(tmp_path / "else/x.jsonl", documents(1))
    (tmp_path / "data").mkdir()
    os.symlink(tmp_path / "blobs/0123", tmp_path / "data/a.jsonl")
    os.symlink(tmp_path / "else", tmp_path / "data/linked")
    notes: list[str] = []
    assert [s.name for s in discover([str(tmp_path / "data")], note=notes.append)] == ["a.jsonl"]
    assert len(notes) == 1 and notes[0].startswith("1 linked folders")


def test_unreadable_tables_are_faults_unless_there_is_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 but not really PAR1")
    (tmp_path / "c.arrow").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"a\.parquet: not a readable Parquet file: empty file"):
        discover([str(tmp_path)])
    write_jsonl(tmp_path / "d.jsonl", documents(3))
    sources = discover([str(tmp_path)])
    assert [bool(s.fault) for s in sources] == [True, True, True, False]
    wholes = read_whole(sources, 100)
    assert [len(whole.faults) for whole in wholes] == [1, 1, 1, 0]
    assert all(fault.rows == 0 and fault.reason.startswith("not a readable") for w in wholes for _, fault in w.faults)


def test_a_lines_file_that_is_all_bad_is_left_to_the_scan(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xff\n{broken\n")
    (source,) = discover([str(tmp_path)])
    assert (source.text, source.id, source.fault) == ("text", None, None)
    assert len(read_whole([source], 100)[0].lines) == 2


def test_remote_and_file_urls(tmp_path: Path) -> None:
    local = write_jsonl(tmp_path / "l.jsonl", documents(4))
    assert discover([f"file://{local}"])[0].path == str(local)
    fs = fsspec.filesystem("memory")
    for name in ("a.jsonl", "sub/b.jsonl.zst", "c.parquet"):
        with fs.open(f"/corpus/{name}", "wb") as file:
            if name.endswith("parquet"):
                pq.write_table(pa.table({"text": ["p", "q"]}), file)
            else:
                file.write(pack(jsonl(documents(9)), "zst" if "zst" in name else None))
    with fs.open("/code/x/y.py", "wb") as file:
        file.write(b"print()\n")
    try:
        sources = discover(["memory://corpus"])
        assert [s.name for s in sources] == ["a.jsonl", "c.parquet", "sub/b.jsonl.zst"]
        expected = [d["text"] for d in documents(9)]
        assert [w.texts for w in read_whole(sources, 64)] == [expected, ["p", "q"], expected]
        assert [s.name for s in discover(["memory://corpus/**/*.jsonl*"])] == ["a.jsonl", "sub/b.jsonl.zst"]
        assert [s.name for s in discover(["memory://corpus/a.jsonl", str(local)])] == ["a.jsonl", "l.jsonl"]
        (tree,) = discover(["memory://code"])
        assert (tree.format, tree.files) == ("tree", ("x/y.py",))
        assert read_whole([tree], 64)[0].texts == ["print()\n"]
        with pytest.raises(InputError, match="no such file"):
            discover(["memory://nowhere/a.jsonl"])
    finally:
        fs.rm("/corpus", recursive=True)
        fs.rm("/code", recursive=True)
