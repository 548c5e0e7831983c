"""entropy_penalized_training on the scikit-learn digits."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from compression.checkpoints import NoCheckpoints
from compression.coding import PackedReport, pack_file
from compression.errors import NotApplicable
from compression.graph import save, summarise
from compression.method import Role, StepOutcome
from compression.methods.entropy_penalized_training import EntropyPenalizedTraining
from tests.compression.distillation.networks import digits
from tests.compression.training.learning import (
    Breaking,
    accuracy,
    arrays,
    context,
    digits_data,
    mlp,
    resumed,
    same,
)

QUICK: dict[str, Any] = {"epochs": 4, "learning_rate": 5e-3}


def learned(folder: Path, model: ir.Model | None = None, data: Any = None, **options: Any) -> StepOutcome:
    given = {name: options.pop(name) for name in ("checkpoints", "seed") if name in options}
    step = EntropyPenalizedTraining(**{**QUICK, **options})
    data = data or digits_data(folder / "data")
    return step.apply(model or mlp(folder / "model"), context(folder, data, **given))


def packed(model: ir.Model, folder: Path) -> PackedReport:
    return pack_file(save(model, folder / "model.onnx")[0], folder / "model.packed")


def test_it_learns_in_few_bits(tmp_path: Path) -> None:
    """The dense network gets about 0.95 with this training and takes 7,400 bytes in floats."""
    pixels, labels = digits()
    outcome = learned(tmp_path, data=digits_data(tmp_path / "d", 1200), rate=0.3, epochs=12)
    assert accuracy(outcome.model, pixels[1200:], labels[1200:]) > 0.9
    assert outcome.details["estimated_bytes"] < 400


def test_the_estimate_is_what_pack_needs(tmp_path: Path) -> None:
    outcome = learned(tmp_path, rate=0.1)
    report = packed(outcome.model, tmp_path)
    kernels = [tensor for tensor in report.tensors if tensor.name in ("first.w", "last.w")]
    assert all("steps" in tensor.codecs for tensor in kernels)
    tables = sum(tensor.stored_bytes for tensor in kernels) - outcome.details["estimated_bytes"]
    assert 0 < tables < 40 * len(kernels)


def test_weights_lie_on_grids(tmp_path: Path) -> None:
    outcome = learned(tmp_path)
    after = arrays(outcome.model)
    steps = outcome.details["step_sizes"]
    assert steps.keys() == {"first.w", "first.b", "last.w", "last.b"}
    for name, step in steps.items():
        numbers = np.rint(after[name] / step)
        assert (numbers.astype(np.float32) * np.float32(step) == after[name]).all()
        assert not np.signbit(after[name][after[name] == 0]).any()
    assert outcome.details["zeros"] == sum(int((array == 0).sum()) for array in after.values())


def test_dearer_bits_are_fewer(tmp_path: Path) -> None:
    sizes = [
        learned(tmp_path / str(rate), rate=rate).details["estimated_bytes"] for rate in (1e-4, 0.03, 0.3, 3.0)
    ]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 0.75 * sizes[0]


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    one, two, other = (
        arrays(learned(tmp_path / name, seed=seed).model) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert same(one, two)
    assert not same(one, other)


@pytest.mark.parametrize(("dies_at", "every"), [([5, 17], 1), ([30], 4)])
def test_resumed_runs_end_with_the_same_bits(tmp_path: Path, dies_at: list[int], every: int) -> None:
    def work(folder: Path, checkpoints: Breaking | NoCheckpoints) -> ir.Model:
        return learned(folder, checkpoints=checkpoints).model

    undisturbed = arrays(work(tmp_path / "undisturbed", NoCheckpoints()))
    assert same(resumed(tmp_path / "resumed", work, dies_at, every), undisturbed)


def test_earlier_zeros_and_other_layers_stay(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m")
    value = model.graph.initializers["first.w"]
    assert value.const_value is not None
    before = np.array(value.const_value.numpy())
    before[:, :6] = 0
    value.const_value = ir.tensor(before, name="first.w")
    untouched = arrays(model)
    outcome = learned(tmp_path, model, layers={"include": ["first"]}, biases=False, rate=1e-4)
    after = arrays(outcome.model)
    assert (after["first.w"][:, :6] == 0).all() and np.count_nonzero(after["first.w"]) > before.size // 4
    assert outcome.details["step_sizes"].keys() == {"first.w"}
    assert after["last.w"].tobytes() == untouched["last.w"].tobytes()
    assert after["first.b"].tobytes() != untouched["first.b"].tobytes()


def test_without_kernels_it_is_refused(tmp_path: Path) -> None:
    step = {"layers": {"include": ["norm"]}}
    model = mlp(tmp_path, norm=True)
    summary = summarise(model, size_bytes=10_000)
    data = {Role.TRAINING: digits_data(tmp_path / "d").summary}
    (problem,) = EntropyPenalizedTraining(**step).forecast(summary, data).problems
    assert "no kernels" in problem.message
    with pytest.raises(NotApplicable, match="nothing in the selected layers"):
        learned(tmp_path / "run", model, **step)
    assert EntropyPenalizedTraining().forecast(summary, data).problems == ()
