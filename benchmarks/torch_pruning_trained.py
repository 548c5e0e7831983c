"""A trained network cut by half, by us and by Torch-Pruning, and finetuned by the same job."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from benchmarks.methods_rows import FEW
from benchmarks.networks import NETWORKS, export
from benchmarks.torch_pruning_ours import run_steps
from compression.method import Role

FINETUNE = {"method": "finetune", "epochs": 8, "batch_size": 128, "learning_rate": 2e-3}
TAYLOR_SAMPLES = 512
SEEDS = (0, 1, 2, 3)
"""Of the finetuning, which moves an accuracy by some tenths of a point."""


def network(name: str, methods: Path) -> Path:
    return methods / "networks" / f"{name}.onnx"


def evaluation(methods: Path) -> Path:
    return _data(methods)[Role.EVALUATION]


def cut_and_finetune(name: str, criterion: str, who: str, methods: Path, target: Path, *, seed: int) -> None:
    """Writes the finetuned network to `target`. `who` is ours or theirs; both go through the same finetuning.

    Raises:
        CompressionError: as `compression.pipeline.run`.
    """
    source = network(name, methods)
    steps: list[Mapping[str, Any]] = [FINETUNE]
    if who == "ours":
        cut = {"method": "prune_channels", "sparsity": 0.5, "criterion": criterion}
        steps.insert(0, {**cut, "max_samples": TAYLOR_SAMPLES})
    else:
        source = target.with_suffix(".cut.onnx")
        source.parent.mkdir(parents=True, exist_ok=True)
        _cut_by_peer(name, criterion, methods, source)
    run_steps(source, target, steps, _data(methods), seed=seed)


def _cut_by_peer(name: str, criterion: str, methods: Path, target: Path) -> None:
    from benchmarks.torch_pruning_peer import halve

    with np.load(_data(methods)[Role.CALIBRATION]) as data:
        images = torch.from_numpy(data["image"][:TAYLOR_SAMPLES])
        labels = torch.from_numpy(data["labels"][:TAYLOR_SAMPLES])
    built = torch_module(name, network(name, methods))
    loss = (lambda: nn.functional.cross_entropy(built(images), labels)) if criterion == "taylor" else None
    halve(built, images[:2], criterion=criterion, loss=loss)
    export(built, target)


def torch_module(name: str, path: Path) -> nn.Module:
    """The torch module whose export the file is, its normalizations folded into the convolutions, as there."""
    stored = {item.name: numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer}
    built = NETWORKS[name]().eval()
    for place, part in list(built.named_modules()):
        if isinstance(part, nn.Sequential) and len(part) == 2 and isinstance(part[1], nn.BatchNorm2d):
            part[0] = _with_bias(part[0], stored[f"{place}.0.weight_bias"])
            part[1] = nn.Identity()
    weights = {name: torch.from_numpy(stored[_stored_as(name)].copy()) for name in built.state_dict()}
    built.load_state_dict(weights)
    return built


def _with_bias(old: Any, bias: np.ndarray) -> nn.Conv2d:
    return nn.Conv2d(
        old.in_channels, len(bias), old.kernel_size, old.stride, old.padding, groups=old.groups, bias=True
    )


def _stored_as(name: str) -> str:
    """The exporter's name for the bias of a convolution into which it folded a normalization."""
    return name.replace(".0.bias", ".0.weight_bias")


def _data(methods: Path) -> dict[Role, Path]:
    """Of the set that benchmarks.methods wrote the first images."""
    folder = methods / "data" / f"fashion-{FEW}"
    return {role: folder / f"{role}.npz" for role in Role}
