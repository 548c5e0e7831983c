"""Files of `torch.export`: sound ones, one that ONNX cannot say, and ones that run code when they are opened."""

import io
import warnings
import zipfile
from pathlib import Path

import torch

CLASSES = 4


class Classifier(torch.nn.Module):
    """Takes `image` of [batch, 1, 8, 8]; returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(1, 6, 3)
        self.norm = torch.nn.BatchNorm2d(6)
        self.head = torch.nn.Linear(6 * 36, CLASSES)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        features = torch.relu(self.norm(self.conv(image))).flatten(1)
        return {"logits": self.head(features), "features": features}


class Decomposition(torch.nn.Module):
    """ONNX has no operator for it."""

    def forward(self, matrix: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigh(matrix).eigenvalues


def save_program(
    path: Path, model: torch.nn.Module | None = None, shape: tuple[int, ...] = (2, 1, 8, 8)
) -> Path:
    """With a dynamic batch axis."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = torch.export.Dim("batch")
        program = torch.export.export(
            (model or Classifier()).eval(), (torch.randn(shape),), dynamic_shapes=({0: batch},)
        )
        torch.export.save(program, path)
    return path


class _Runs:
    def __init__(self, code: str) -> None:
        self._code = code

    def __reduce__(self) -> tuple[object, tuple[str, dict[str, object]]]:
        return exec, (self._code, {})


def save_hostile(path: Path, sound: Path, code: str) -> Path:
    """The sound program with example inputs that are a pickle which runs `code`."""
    pickled = io.BytesIO()
    torch.save(_Runs(code), pickled)
    with zipfile.ZipFile(sound) as source, zipfile.ZipFile(path, "w") as target:
        for info in source.infolist():
            hostile = "sample_inputs" in info.filename
            target.writestr(info, pickled.getvalue() if hostile else source.read(info))
    return path
