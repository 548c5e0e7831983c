"""Whole architectures agree with onnxruntime, and every weight of them gets a gradient."""

from pathlib import Path

import pytest
import torch

from benchmarks.trainable_models import LIGHT, light_models, measure
from compression.graph import load
from compression.graph.trainable import TrainableGraph, check_agreement, obstacles
from compression.graph.trainable.elements import computed_tensor
from tests.compression import zoo

pytestmark = pytest.mark.slow


def test_the_architectures_of_the_onnx_package_train() -> None:
    measured = [measure(name, model) for name, model in light_models()]
    assert [model.name for model in measured] == list(LIGHT)
    for model in measured:
        assert not model.reason, f"{model.name}: {model.reason}"
        assert model.with_gradient == model.weights > 0
        assert model.rewritten == 0


@pytest.mark.parametrize("name", zoo.NAMES)
def test_what_torch_exports_trains(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(zoo.exported(name))
    model = load(path)
    assert obstacles(model) == ()
    view = TrainableGraph(model)
    feeds = zoo.feeds(name)
    assert check_agreement(view, model, feeds) < 1e-5
    outputs = view.eval()({key: computed_tensor(array) for key, array in feeds.items()})
    torch.stack(
        [output.square().mean() for output in outputs.values() if output.requires_grad]
    ).sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in view.weights.values())
