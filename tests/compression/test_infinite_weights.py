"""A mask of minus infinity among the weights, as attention has it, keeps no step from the rest of the model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compression.data import open_dataset
from compression.graph import load, save, summarise
from compression.method import Role, StepContext, StepOutcome
from compression.spec import CompressionSpec
from tests.compression.graph.running import answers, random, write
from tests.compression.models import weights_of

MASKED = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,64] x, int64[N] kind) => (float[N,4] y) {
    [first] h = MatMul(x, w1)
    r = Relu(h)
    [second] z = MatMul(r, w2)
    [mask] m = Gather(table, kind)
    s = Add(z, m)
    y = Softmax<axis=-1>(s)
}"""
TABLE = np.where(np.tril(np.ones((4, 4))), 0, -np.inf).astype(np.float32)
X, KIND = random(32, 64, seed=3), np.arange(32) % 4
STEPS: tuple[dict[str, Any], ...] = (
    {"method": "quantize_static", "placement": "all"},
    {"method": "quantize_dynamic"},
    {"method": "quantize_weights"},
    {"method": "quantize_weights", "bits": 4, "block_size": 32},
    {"method": "quantize_levels"},
    {"method": "cast_float"},
    {"method": "prune_magnitude", "sparsity": 0.5},
    {"method": "prune_channels", "sparsity": 0.5, "round_to": 1},
    {"method": "share_weights"},
    {"method": "factorize", "ratio": 0.5},
    {"method": "finetune", "epochs": 1, "validation": 0},
)


def masked(folder: Path) -> Path:
    w1, w2 = 0.1 * random(64, 64, seed=1), 0.1 * random(64, 4, seed=2)
    return write(folder / "masked.onnx", MASKED, w1=w1, w2=w2, table=TABLE)


def applied(step: dict[str, Any], folder: Path) -> tuple[Path, StepOutcome]:
    np.savez(folder / "data.npz", x=X, kind=KIND, labels=KIND // 2)
    context = StepContext(
        workdir=folder,
        data=dict.fromkeys(Role, open_dataset(folder / "data.npz", folder / "data")),
        device="cpu",
        threads=1,
        seed=0,
        report=lambda *_: None,
        original=masked(folder),
    )
    (method,) = CompressionSpec.model_validate({"steps": [step]}).steps
    outcome = method.apply(load(masked(folder)), context)
    return save(outcome.model, folder / "result.onnx")[0], outcome


@pytest.mark.parametrize("step", STEPS, ids=lambda step: "-".join(map(str, step.values())))
def test_the_other_layers_are_worked_on(step: dict[str, Any], tmp_path: Path) -> None:
    result, outcome = applied(step, tmp_path)
    found, after = weights_of(tmp_path / "masked.onnx"), weights_of(result)
    assert outcome.layers
    assert not np.array_equal(after.get("w1"), found["w1"])
    assert any(np.array_equal(array, TABLE) for array in after.values())
    y = answers(result, {"x": X, "kind": KIND})["y"]
    assert np.isfinite(y).all()
    assert np.array_equal(y == 0, np.exp(TABLE)[KIND] == 0)


def test_the_upload_is_warned_of(tmp_path: Path) -> None:
    summary = summarise(load(masked(tmp_path)), size_bytes=1)
    assert [weight.finite for layer in summary.layers for weight in layer.weights] == [True, True, False]
    assert summary.warnings == (
        "NaN or infinity in the weight 'table': steps leave their layers as they are",
    )
