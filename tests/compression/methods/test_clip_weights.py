"""clip_weights against its two formulas by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from compression.graph import load, save
from compression.method import StepContext, StepOutcome
from compression.methods.clip_weights import ClipWeights, clip_at, toward_sign
from tests.compression.models import small_model, weights_of

KERNELS = ("conv1.w", "conv2.w", "fc.w")


def clip(path: Path, **parameters: Any) -> tuple[dict[str, np.ndarray], StepOutcome]:
    context = StepContext(
        workdir=path.parent, data={}, device="cpu", threads=1, seed=0, report=lambda fraction, message: None
    )
    outcome = ClipWeights(**parameters).apply(load(path), context)
    return weights_of(save(outcome.model, path.parent / "clipped.onnx")[0]), outcome


def test_percentile_by_hand(tmp_path: Path) -> None:
    path = small_model(tmp_path / "m.onnx")
    before = weights_of(path)
    after, outcome = clip(path, percentile=90)
    for name in KERNELS:
        limit = np.percentile(np.abs(before[name].astype(np.float64)), 90)
        np.testing.assert_array_equal(
            after[name], np.clip(before[name].astype(np.float64), -limit, limit).astype("f")
        )
    numbers = {entry.layer: entry.numbers for entry in outcome.layers}
    # Of 576 magnitudes the 90th percentile lies between the 518th and the 519th: 58 are above it.
    assert numbers["conv2"]["moved"] == 58
    for name in before.keys() - set(KERNELS):
        np.testing.assert_array_equal(after[name], before[name])


def test_default_percentile_is_written_down(tmp_path: Path) -> None:
    path = small_model(tmp_path / "m.onnx")
    np.testing.assert_array_equal(clip(path)[0]["conv2.w"], clip(path, percentile=99.9)[0]["conv2.w"])


def test_limit(tmp_path: Path) -> None:
    path = small_model(tmp_path / "m.onnx")
    before = weights_of(path)
    after, _ = clip(path, mode="limit", limit=0.25)
    for name in KERNELS:
        np.testing.assert_array_equal(after[name], np.clip(before[name], -0.25, 0.25))


def test_toward_sign_by_hand(tmp_path: Path) -> None:
    path = small_model(tmp_path / "m.onnx")
    before = weights_of(path)
    after, _ = clip(path, mode="toward_sign", rate=0.25)
    for name in KERNELS:
        wide = before[name].astype(np.float64)
        np.testing.assert_array_equal(after[name], (wide * 0.75 + 0.25 * np.sign(wide)).astype(np.float32))


def test_formulas_at_their_ends() -> None:
    values = np.array([-2.0, -0.5, 0.0, 0.5, 1.0], np.float16)
    assert toward_sign(values, 1.0).tolist() == [-1, -1, 0, 1, 1]
    assert toward_sign(values, 0.5).tolist() == [-1.5, -0.75, 0, 0.75, 1]
    assert clip_at(values, 0.75).tolist() == [-0.75, -0.5, 0, 0.5, 0.75]
    assert toward_sign(values, 0.5).dtype == clip_at(values, 1).dtype == np.float16


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"mode": "limit"}, "needs limit"),
        ({"mode": "toward_sign"}, "needs rate"),
        (
            {"mode": "toward_sign", "rate": 0.1, "percentile": 99},
            "percentile belongs to the mode 'percentile'",
        ),
        ({"rate": 0.1}, "rate belongs to the mode 'toward_sign'"),
        ({"mode": "limit", "limit": 0}, "greater than 0"),
        ({"percentile": 100}, "less than 100"),
        ({"mode": "toward_sign", "rate": 1.5}, "less than or equal to 1"),
    ],
)
def test_contradicting_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ClipWeights(**parameters)
