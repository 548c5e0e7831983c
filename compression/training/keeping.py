"""One file for a step that trains: where the method is, and where its training is, in tensors and plain values.

safetensors, since a checkpoint comes back from the object store and must not be able to run code.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from compression.checkpoints import Checkpoints

FORMAT = "1"
PARTS = ("method", "training")


@dataclass
class State:
    """Plain values that JSON holds exactly, and tensors by name."""

    plain: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin so, without that."""
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}

    def put(self, prefix: str, tensors: Mapping[str, Tensor]) -> None:
        """Takes copies on the CPU, so that nothing changes them while they are written."""
        self.tensors |= {prefix + k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}


class Keeper:
    """Saves and gives back both parts. A file that cannot be read counts as none: the step starts anew.

    `method` is what the method itself keeps: set before a training starts, and saved with it.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        found = _read(checkpoints.load())
        self.method: State = found.get("method", State())
        self.resumed = bool(found)
        self._training = found.get("training")

    def take_training(self) -> State | None:
        """Where the training was, once: what comes after it begins at its beginning."""
        taken, self._training = self._training, None
        return taken if taken is not None and taken.plain else None

    def due(self) -> bool:
        return self._checkpoints.due()

    def save(self, training: State | None = None) -> None:
        parts = {"method": self.method, "training": training or State()}
        self._checkpoints.save(lambda path: _write(path, parts))


def _write(path: Path, parts: Mapping[str, State]) -> None:
    tensors = {f"{part}/{name}": value for part in parts for name, value in parts[part].tensors.items()}
    plain = {part: json.dumps(state.plain) for part, state in parts.items()}
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata={"format": FORMAT, **plain})


def _read(path: Path | None) -> dict[str, State]:
    if path is None:
        return {}
    with suppress(SafetensorError, OSError, KeyError, ValueError), safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            return {}
        parts = {part: State(plain=json.loads(metadata[part])) for part in PARTS}
        for key in file.keys():  # noqa: SIM118
            part, _, name = key.partition("/")
            parts[part].tensors[name] = file.get_tensor(key)
        return parts
    return {}
