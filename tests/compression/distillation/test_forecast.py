"""The forecast of a derived student against the student itself."""

from pathlib import Path

import pytest

from compression.distillation.forecast import derived_summary
from compression.distillation.settings import Derive
from compression.distillation.width import narrow
from compression.graph import load, save, summarise
from tests.compression.distillation.networks import Writer, convolutional_network


@pytest.mark.parametrize("width", [0.75, 0.5, 0.25])
@pytest.mark.parametrize("depthwise", [False, True])
def test_size_and_macs_of_a_narrow_student(tmp_path: Path, width: float, depthwise: bool) -> None:
    """MACs to the digit, parameters to the biases of the ends, and the file but for its headers."""
    path = separable_network(tmp_path) if depthwise else convolutional_network(tmp_path / "m.onnx", width=32)
    model = load(path)
    teacher = summarise(model, size_bytes=path.stat().st_size)
    expected = derived_summary(teacher, Derive(width=width))
    narrow(model, width)
    (saved,) = save(model, tmp_path / "narrow.onnx")
    found = summarise(model, size_bytes=saved.stat().st_size)
    assert expected.macs == found.macs
    assert expected.parameters == pytest.approx(found.parameters, rel=0.02)
    assert expected.size_bytes == pytest.approx(found.size_bytes, abs=300, rel=0.02)


def separable_network(folder: Path) -> Path:
    """A convolution, a depthwise and a pointwise one, ten logits."""
    writer = Writer(0)
    x = writer.relu(writer.conv("image", "first", 1, 16), "relu")
    kernel = writer.weight("depth.w", 16, 1, 3, 3)
    x = writer.node("Conv", [x, kernel], "depth", group=16, pads=[1, 1, 1, 1])
    x = writer.relu(writer.node("Conv", [x, writer.weight("point.w", 32, 16, 1, 1)], "point"), "relu2")
    x = writer.node("Flatten", [writer.node("GlobalAveragePool", [x], "pool")], "flatten")
    return writer.save(folder / "m.onnx", writer.dense(x, "head", 32, 10), (1, 8, 8))


def test_layers_that_stay_count_whole(tmp_path: Path) -> None:
    path = convolutional_network(tmp_path / "m.onnx")
    teacher = summarise(load(path), size_bytes=path.stat().st_size)
    names = [layer.name for layer in teacher.layers]
    assert derived_summary(teacher, Derive(width=0.5), names).size_bytes == teacher.size_bytes
