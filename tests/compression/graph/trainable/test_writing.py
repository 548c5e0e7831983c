"""What was not trained keeps its bytes; what was comes back in the type it is stored in."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from compression.errors import NotTrainable
from compression.graph import load, save
from compression.graph.trainable import TrainableGraph, write_back
from tests.compression.graph.trainable.building import MLP, MLP_WEIGHTS, loaded
from tests.compression.models import small_model


def stored(model: ir.Model) -> dict[str, bytes]:
    return {
        name: value.const_value.tobytes()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_untrained_weights_keep_every_byte(tmp_path: Path, dtype: type) -> None:
    model = load(small_model(tmp_path / "model.onnx", dtype=dtype))
    save(model, tmp_path / "before.onnx")
    assert write_back(TrainableGraph(model), model) == 0
    save(model, tmp_path / "after.onnx")
    assert (tmp_path / "before.onnx").read_bytes() == (tmp_path / "after.onnx").read_bytes()


def test_odd_values_survive_a_round_trip(tmp_path: Path) -> None:
    """Negative zero, the smallest numbers and a NaN with a message in it."""
    odd = np.array([-0.0, 1e-45, -1e-40, np.float32(np.nan)], np.float32)
    odd.view(np.uint32)[3] = 0x7FC12345
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y) { y = PRelu(x, w) }'
    model = loaded(tmp_path / "odd.onnx", text, w=odd)
    view = TrainableGraph(model)
    assert "w" in view.weights
    assert write_back(view, model) == 0
    assert stored(model)["w"] == odd.tobytes()


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    model = loaded(tmp_path / "mlp.onnx", MLP, **MLP_WEIGHTS)
    before = stored(model)
    view = TrainableGraph(model)
    with torch.no_grad():
        view.weights["w2"][1, 2] = 5.0
    assert write_back(view, model) == 1
    after = stored(model)
    assert [name for name in before if before[name] != after[name]] == ["w2"]
    assert np.frombuffer(after["w2"], np.float32).reshape(6, 3)[1, 2] == 5.0
    assert write_back(view, model) == 0


def test_half_precision_is_rounded_to_nearest(tmp_path: Path) -> None:
    model = load(small_model(tmp_path / "model.onnx", dtype=np.float16))
    view = TrainableGraph(model)
    with torch.no_grad():
        view.weights["fc.b"][0] = 1.0 + 2**-11 + 2**-20
    assert write_back(view, model) == 1
    tensor = model.graph.initializers["fc.b"].const_value
    assert tensor is not None
    assert tensor.dtype == ir.DataType.FLOAT16
    assert float(tensor.numpy()[0]) == 1.0 + 2**-10


def test_statistics_come_back_too(tmp_path: Path) -> None:
    model = load(small_model(tmp_path / "model.onnx"))
    view = TrainableGraph(model).train()
    view({"image": torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))})
    assert write_back(view, model) == 2
    tensor = model.graph.initializers["bn1.mean"].const_value
    assert tensor is not None
    np.testing.assert_array_equal(tensor.numpy(), view.statistics["bn1.mean"].numpy())


def test_another_model_is_refused_and_left_alone(tmp_path: Path) -> None:
    view = TrainableGraph(loaded(tmp_path / "mlp.onnx", MLP, **MLP_WEIGHTS))
    other = loaded(tmp_path / "other.onnx", MLP, **{**MLP_WEIGHTS, "w2": (6, 4)})
    before = stored(other)
    with torch.no_grad():
        view.weights["w1"].zero_()
    with pytest.raises(NotTrainable, match="'w2' has another shape"):
        write_back(view, other)
    assert stored(other) == before
