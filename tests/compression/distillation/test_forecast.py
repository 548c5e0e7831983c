"""The forecast of a derived student against the student itself."""

from pathlib import Path

import pytest

from compression.distillation.forecast import derived_summary
from compression.distillation.settings import Derive
from compression.distillation.width import narrow
from compression.graph import load, save, summarise
from tests.compression.distillation.networks import convolutional_network


@pytest.mark.parametrize("width", [0.75, 0.5, 0.25])
def test_size_and_macs_of_a_narrow_student(tmp_path: Path, width: float) -> None:
    """Within a quarter: the layer at an end of the network has one side that does not shrink."""
    path = convolutional_network(tmp_path / "m.onnx", width=32)
    model = load(path)
    teacher = summarise(model, size_bytes=path.stat().st_size)
    expected = derived_summary(teacher, Derive(width=width))
    narrow(model, width)
    (saved,) = save(model, tmp_path / "narrow.onnx")
    found = summarise(model, size_bytes=saved.stat().st_size)
    assert expected.size_bytes == pytest.approx(found.size_bytes, rel=0.25)
    assert expected.macs == pytest.approx(found.macs, rel=0.25)
    assert expected.parameters == pytest.approx(found.parameters, rel=0.25)


def test_layers_that_stay_count_whole(tmp_path: Path) -> None:
    path = convolutional_network(tmp_path / "m.onnx")
    teacher = summarise(load(path), size_bytes=path.stat().st_size)
    names = [layer.name for layer in teacher.layers]
    assert derived_summary(teacher, Derive(width=0.5), names).size_bytes == teacher.size_bytes
