"""Tokenizers: opened by file, folder or name, with their identity; and byte-level BPE trained on a corpus, offline."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from phi_fast.errors import InputError, RunError

END_OF_TEXT = "<|endoftext|>"
RUNS = [" " * n for n in range(31, 1, -1)] + ["\t" * n for n in range(9, 1, -1)]
"""Runs of spaces and tabs that CodeGen's tokenizer holds as tokens, in its order."""
SAMPLE_BYTES = 1 << 30

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_IN_RUNS = re.compile(r" {2,}|\t{2,}")


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer and what it is known by; see `open_tokenizer`.

    Attributes
    ----------
    tokenizer : tokenizers.Tokenizer
        Without padding and truncation. Special tokens written out in a text are text to it, not tokens.
    name : str
        What it was opened by: a hub name, or the last part of a path. No part of the identity.
    end_of_text : int
        Id of the token that closes a document.
    vocabulary : int
        Highest id there is, plus one: the least rows an embedding needs.
    sha256 : str
        Of the canonical JSON: keys sorted, without padding, truncation and what is null or false.
    """

    tokenizer: Any
    name: str
    end_of_text: int
    vocabulary: int
    sha256: str

    @property
    def identity(self) -> dict[str, Any]:
        """What must agree where two people speak of the same tokens."""
        return {"sha256": self.sha256, "vocabulary": self.vocabulary, "end_of_text": self.end_of_text}

    @property
    def json(self) -> str:
        """The tokenizer as a tokenizer.json."""
        text: str = self.tokenizer.to_str()
        return text

    def encode(self, texts: Sequence[str], dtype: Any = np.int64) -> list[np.ndarray[Any, Any]]:
        """Ids of each text, without special tokens before or after it."""
        found = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids, dtype) for one in found]

    def decode(self, ids: Any) -> str:
        """The text of ids, special tokens written out."""
        text: str = self.tokenizer.decode([int(one) for one in ids], skip_special_tokens=False)
        return text


def open_tokenizer(name: str | os.PathLike[str], *, end_of_text: str | None = None) -> Tokenizer:
    """Open a tokenizer.

    Parameters
    ----------
    name
        A tokenizer.json, a folder that holds one (or what transformers' AutoTokenizer reads), or a name on the
        Hugging Face hub, such as ``Salesforce/codegen-350M-mono``.
    end_of_text
        The token that closes a document, written out; ``<|endoftext|>`` where there is one, else the end-of-sequence
        token that the folder's tokenizer_config.json names.

    Raises
    ------
    InputError
        Nothing there, not a tokenizer, the hub cannot be reached, or no such end-of-text token.
    """
    path, wanted = Path(name).expanduser(), end_of_text
    config: Mapping[str, Any] = {}
    if path.is_dir():
        config = _config(path / "tokenizer_config.json")
        file = path / "tokenizer.json"
        raw = _from_file(file) if file.exists() else _by_transformers(str(path), "holds no tokenizer.json")
    elif path.exists():
        config = _config(path.with_name("tokenizer_config.json"))
        raw = _from_file(path)
    elif _HUB_NAME.fullmatch(os.fspath(name)) and not os.fspath(name).endswith(".json"):
        raw = _from_hub(os.fspath(name))
    else:
        raise InputError(f"{name}: no such file or folder; give a tokenizer.json, a folder with one, or a hub name")
    if wanted is None:
        said = config.get("eos_token")
        wanted = said.get("content") if isinstance(said, dict) else said
        if raw.token_to_id(END_OF_TEXT) is not None or not isinstance(wanted, str):
            wanted = END_OF_TEXT
    shown = path.name if path.exists() else os.fspath(name)
    return _opened(raw, shown, wanted)


def from_json(text: str, name: str, end_of_text: int) -> Tokenizer:
    """Open a tokenizer from its JSON; the end-of-text token by id."""
    raw = _tokenizers().Tokenizer.from_str(text)
    said = raw.id_to_token(end_of_text)
    if said is None:
        raise InputError(f"{name}: no token has the id {end_of_text:,}")
    return _opened(raw, name, said)


def train_tokenizer(
    corpus: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    vocabulary: int = 8192,
    runs: bool = False,
    text: str | None = None,
    id: str | None = None,
    pattern: str | None = None,
    sample_bytes: int = SAMPLE_BYTES,
    begin: Callable[[int], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tokenizer:
    """Train byte-level BPE with GPT-2's pre-tokenizer; the same corpus and settings give the same file.

    Parameters
    ----------
    corpus, text, id, pattern
        As for `phi_fast.decontaminate`. A corpus of more than `sample_bytes` gives pieces from all over it.
    output
        The tokenizer.json to write.
    vocabulary
        Tokens in all, ``<|endoftext|>`` (id 0) and the runs included; fewer where the corpus holds too little to merge.
    runs
        Tokens for 2 to 31 spaces and 2 to 9 tabs, as in CodeGen's tokenizer: they shorten indented code.
    begin
        Called with the bytes to be read, about.
    progress
        Called with bytes and documents read since the last call.

    Raises
    ------
    InputError
        Something about the arguments or the corpus is wrong.
    RunError
        A file vanished, or the tokenizer cannot be written.
    """
    from phi_fast.corpus import discover

    parts = _tokenizers()
    extra = RUNS if runs else []
    least = 256 + 1 + len(extra)
    if vocabulary < least:
        raise InputError(f"vocabulary of {vocabulary:,}: bytes and special tokens alone are {least:,}; give more")
    path = Path(output).expanduser()
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name the file to write, such as {path / 'tokenizer.json'}")
    sources = discover(
        [os.fspath(one) for one in ([corpus] if isinstance(corpus, str | os.PathLike) else corpus)],
        text=text, id=id, pattern=pattern,
    )  # fmt: skip
    if begin:
        begin(min(sample_bytes, sum(source.size for source in sources)))
    raw = parts.Tokenizer(parts.models.BPE())
    raw.pre_tokenizer = parts.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = parts.decoders.ByteLevel()
    trainer = parts.trainers.BpeTrainer(
        vocab_size=vocabulary - len(extra), show_progress=False,
        initial_alphabet=sorted(parts.pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[parts.AddedToken(END_OF_TEXT, special=True, normalized=False)],
    )  # fmt: skip
    texts = _texts(sources, sample_bytes, progress or (lambda read, count: None), runs)
    _in_a_thread(lambda: raw.train_from_iterator(texts, trainer))
    raw.add_tokens([parts.AddedToken(run, normalized=False) for run in extra])
    partial = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(raw.to_str(pretty=True) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error
    return open_tokenizer(path)


def _texts(sources: Sequence[Any], limit: int, tell: Callable[[int, int], None], runs: bool) -> Iterator[list[str]]:
    from phi_fast.corpus import sample
    from phi_fast.corpus.documents import documents

    for number, batch in sample(sources, limit):
        texts = [one.text for one in documents(batch, sources[number]) if one.text is not None]
        tell(sum(len(one.encode()) for one in texts), len(texts))
        # the runs are tokens of their own: no merge need be spent on them
        yield [piece for one in texts for piece in (_IN_RUNS.split(one) if runs else (one,))]


def _in_a_thread(call: Callable[[], object]) -> None:
    """Call in a thread, so that Ctrl-C is heard during long calls into Rust."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="phi-fast-tokenizer", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
    if failed:
        raise failed[0]


def _opened(raw: Any, name: str, end_of_text: str) -> Tokenizer:
    raw.no_padding()
    raw.no_truncation()
    value = json.loads(raw.to_str())
    digest = hashlib.sha256(json.dumps(_bare(value), sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    number = raw.token_to_id(end_of_text)
    if number is None:
        special = [one["content"] for one in value.get("added_tokens", ()) if one.get("special")][:8]
        raise InputError(f'{name}: has no token "{end_of_text}" to end a document; its special tokens are {special}')
    added = [one for one in value.get("added_tokens", ()) if one["id"] == number]
    if added and not added[0].get("special"):  # only special tokens can be told apart from the same words in a text
        added[0]["special"] = True
        raw = _tokenizers().Tokenizer.from_str(json.dumps(value))
    raw.encode_special_tokens = True
    if number in raw.encode(f"a {end_of_text} a{end_of_text}", add_special_tokens=False).ids:
        raise InputError(f'{name}: a text that holds "{end_of_text}" would end there; name another --end-of-text')
    vocabulary = max(raw.get_vocab(with_added_tokens=True).values()) + 1
    return Tokenizer(raw, name, number, vocabulary, digest)


def _bare(value: Any) -> Any:
    """JSON without what is null or false: newer versions of `tokenizers` write settings older ones did not have."""
    if isinstance(value, dict):
        return {key: _bare(one) for key, one in value.items() if one is not None and one is not False}
    return [_bare(one) for one in value] if isinstance(value, list) else value


def _config(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _from_file(path: Path) -> Any:
    try:
        return _tokenizers().Tokenizer.from_file(str(path))
    except InputError:
        raise
    except Exception as error:  # the package raises plain Exceptions
        raise InputError(f"{path}: no tokenizer.json that the package tokenizers reads: {error}") from error


def _from_hub(name: str) -> Any:
    parts = _tokenizers()
    try:
        return parts.Tokenizer.from_pretrained(name)
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        reached = type(error).__name__ != "LocalEntryNotFoundError"  # else it would try for a minute more, in vain
        return _by_transformers(name, f"the hub gave no tokenizer.json ({said})", hub=reached)


def _by_transformers(name: str, why: str, *, hub: bool = False) -> Any:
    try:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(name, use_fast=True, local_files_only=not hub).backend_tokenizer
    except Exception as error:
        raise InputError(
            f"{name}: no file of that name here, {why}, and transformers opens none. Offline, give a tokenizer.json or "
            "a folder that holds one; `phi-fast tokenizer train` makes one from a corpus."
            if not Path(name).exists()
            else f"{name}: {why}, and transformers opens none: {str(error).splitlines()[0][:200]}"
        ) from error


def _tokenizers() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError as error:
        raise InputError("tokens need the package tokenizers: pip install 'phi-fast[train]'") from error
    return tokenizers
