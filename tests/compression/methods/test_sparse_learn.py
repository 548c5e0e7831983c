"""sparse_learn on the scikit-learn digits."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from pydantic import ValidationError

from compression.checkpoints import NoCheckpoints
from compression.errors import NotApplicable
from compression.graph import summarise
from compression.method import Role, StepOutcome
from compression.methods.sparse_learn import SparseLearn
from tests.compression.distillation.networks import Writer, digits
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

QUICK: dict[str, Any] = {"epochs": 4, "debias_epochs": 2, "learning_rate": 5e-3}


def learned(folder: Path, model: ir.Model | None = None, data: Any = None, **options: Any) -> StepOutcome:
    given = {name: options.pop(name) for name in ("checkpoints", "seed", "report") if name in options}
    step = SparseLearn(**{**QUICK, **options})
    data = data or digits_data(folder / "data")
    return step.apply(model or mlp(folder / "model"), context(folder, data, **given))


def convolutions(folder: Path) -> ir.Model:
    """Conv(1, 8) - Relu - Conv(8, 8) - Relu - Add of both - Gemm(8 * 64, 10): the channels of both are one group."""
    from compression.graph import load

    folder.mkdir(parents=True, exist_ok=True)
    writer = Writer(0)
    first = writer.relu(writer.conv("image", "one", 1, 8), "relu_one")
    second = writer.relu(writer.conv(first, "two", 8, 8), "relu_two")
    both = writer.node("Add", [first, second], "both")
    flat = writer.node("Flatten", [both], "flat")
    writer.save(folder / "conv.onnx", writer.dense(flat, "last", 8 * 64, 10), (1, 8, 8))
    return load(folder / "conv.onnx")


@pytest.mark.parametrize(("scope", "sparsity"), [("global", 0.9), ("layer", 0.77)])
def test_the_target_is_met_to_one_weight(tmp_path: Path, scope: str, sparsity: float) -> None:
    outcome = learned(tmp_path, scope=scope, sparsity=sparsity)
    kernels = {name: array for name, array in arrays(outcome.model).items() if array.ndim == 2}
    zeros = {name: int((array == 0).sum()) for name, array in kernels.items()}
    if scope == "global":
        assert sum(zeros.values()) == round(sparsity * sum(array.size for array in kernels.values()))
    else:
        assert zeros == {name: round(sparsity * array.size) for name, array in kernels.items()}
    assert outcome.details["zeros"] == sum(zeros.values())
    assert len(outcome.details["strengths"]) == (1 if scope == "global" else 2)
    told = {layer.layer: layer.numbers for layer in outcome.layers}
    assert told["first"]["zeros"] == zeros["first.w"]
    assert not any("not met exactly" in note for note in outcome.notes)


def test_it_learns_while_weights_leave(tmp_path: Path) -> None:
    """Four in five weights less than the dense network, which gets about 0.94 with this training."""
    pixels, labels = digits()
    data = digits_data(tmp_path / "d", 1200)
    outcome = learned(tmp_path, data=data, sparsity=0.8, epochs=12, debias_epochs=6)
    assert accuracy(outcome.model, pixels[1200:], labels[1200:]) > 0.9
    assert outcome.details["debiasing"]["metric"] == "accuracy"


def test_stronger_is_sparser(tmp_path: Path) -> None:
    shares = [
        learned(tmp_path / str(strength), strength=strength, debias_epochs=0).details["sparsity"]
        for strength in (1e-4, 1e-3, 1e-2, 1e-1)
    ]
    assert shares == sorted(shares) and len(set(shares)) == 4
    assert shares[0] < 0.3 < 0.8 < shares[-1]


def test_a_threshold_leaves_nothing_below(tmp_path: Path) -> None:
    outcome = learned(tmp_path, penalty="l2", strength=1e-2, threshold=0.05, debias_epochs=0)
    kernels = [array for array in arrays(outcome.model).values() if array.ndim == 2]
    assert all(np.abs(array[array != 0]).min() >= 0.05 for array in kernels)
    assert 0.05 < outcome.details["sparsity"] < 1


def test_ridge_weights_are_cut_to_the_target(tmp_path: Path) -> None:
    outcome = learned(tmp_path, penalty="l2", strength=1e-2, sparsity=0.6)
    assert outcome.details["members"]["gone"] == round(0.6 * (64 * 24 + 240))


@pytest.mark.parametrize("groups", ["channels", "filters", "inputs"])
def test_units_leave_whole(tmp_path: Path, groups: str) -> None:
    data = digits_data(tmp_path / "d", images=True)
    outcome = learned(
        tmp_path, convolutions(tmp_path / "m"), data, penalty="group_lasso", groups=groups, sparsity=0.5
    )
    after = arrays(outcome.model)
    gone = {name: _empty(after[name], 0) for name in ("one.w", "two.w")}
    members = outcome.details["members"]
    assert members["gone"] == round(0.5 * members["of"])
    if groups == "channels":
        assert gone["one.w"] == gone["two.w"] and len(gone["one.w"]) == 4
        for bias in ("one.b", "two.b"):
            assert np.flatnonzero(after[bias] == 0).tolist() == gone[bias.replace(".b", ".w")]
        assert "must stay" in outcome.layers[2].note
    elif groups == "filters":
        rows = sum(map(len, gone.values())) + len(_empty(after["last.w"], _outputs(after)))
        assert rows == members["gone"]
        assert outcome.layers[0].numbers["units_gone"] == len(gone["one.w"])
    else:
        assert len(_empty(after["two.w"], 1)) == outcome.layers[1].numbers["units_gone"]


def _empty(weight: np.ndarray, axis: int) -> list[int]:
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    return np.flatnonzero(~rows.any(axis=1)).tolist()


def _outputs(after: dict[str, np.ndarray]) -> int:
    return int(after["last.w"].shape[1] == 10)


def test_units_that_are_gone_can_be_cut_without_a_trace(tmp_path: Path) -> None:
    from compression.graph.channels import cut, find_groups
    from compression.runtime import open_session, run

    data = digits_data(tmp_path / "d", images=True)
    model = learned(
        tmp_path, convolutions(tmp_path / "m"), data, penalty="group_lasso", sparsity=0.5, debias_epochs=1
    ).model
    pixels = digits()[0][:20].reshape(-1, 1, 8, 8)
    (before,) = run(open_session(model, device="cpu", threads=1), {"image": pixels}).values()
    (group,) = find_groups(model).groups
    gone = _empty(arrays(model)["one.w"], 0)
    cut(model, {group.id: gone})
    assert arrays(model)["two.w"].shape == (4, 4, 3, 3)
    (after,) = run(open_session(model, device="cpu", threads=1), {"image": pixels}).values()
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


def test_one_unit_stays_in_each_group(tmp_path: Path) -> None:
    outcome = learned(tmp_path, penalty="group_lasso", sparsity=0.99)
    assert outcome.details["members"] == {
        "kind": "units",
        "gone": 23,
        "of": 24,
        "parts": {"first": {"gone": 23, "of": 24}},
    }
    assert any("not met exactly" in note for note in outcome.notes)


def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    one, two, other = (
        arrays(learned(tmp_path / name, sparsity=0.8, seed=seed).model)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert same(one, two)
    assert not same(one, other)


@pytest.mark.parametrize(
    ("options", "dies_at", "every"),
    [
        ({"sparsity": 0.8}, [5, 40], 1),
        ({"sparsity": 0.8, "epochs": 2}, [24], 1),
        ({"penalty": "group_lasso", "sparsity": 0.5, "optimizer": "sgd", "learning_rate": 0.05}, [33, 30], 4),
        ({"strength": 1e-3, "scope": "layer"}, [50, 20], 1),
    ],
)
def test_resumed_runs_end_with_the_same_bits(
    tmp_path: Path, options: dict[str, Any], dies_at: list[int], every: int
) -> None:
    """Deaths under the penalty, between the trainings, and with the zeros fixed."""

    def work(folder: Path, checkpoints: Breaking | NoCheckpoints) -> ir.Model:
        return learned(folder, checkpoints=checkpoints, **options).model

    undisturbed = arrays(work(tmp_path / "undisturbed", NoCheckpoints()))
    assert same(resumed(tmp_path / "resumed", work, dies_at, every), undisturbed)


def test_earlier_zeros_stay_and_others_layers_too(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m")
    value = model.graph.initializers["first.w"]
    assert value.const_value is not None
    before = np.array(value.const_value.numpy())
    before[:, :6] = 0
    value.const_value = ir.tensor(before, name="first.w")
    last = arrays(model)["last.w"]
    outcome = learned(tmp_path, model, sparsity=0.7, layers={"include": ["first"]})
    after = arrays(outcome.model)
    assert (after["first.w"][:, :6] == 0).all()
    assert np.count_nonzero(after["first.w"]) == before.size - round(0.7 * before.size)
    assert after["last.w"].tobytes() == last.tobytes()


def test_progress_goes_on_over_both_trainings(tmp_path: Path) -> None:
    heard: list[tuple[float, str]] = []
    learned(tmp_path, sparsity=0.5, report=lambda *said: heard.append(said))
    fractions = [fraction for fraction, _ in heard]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0
    assert any("under the penalty" in words for _, words in heard)
    assert "with the zeros fixed" in heard[-1][1]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "give strength, sparsity or both"),
        ({"threshold": 0.1}, "give strength, sparsity or both"),
        ({"sparsity": 0.5, "threshold": 0.1}, "threshold goes with strength"),
        ({"penalty": "l2", "sparsity": 0.5}, "l2 makes no zeros of itself"),
        ({"penalty": "l2", "strength": 0.5}, "l2 makes no zeros of itself"),
        ({"sparsity": 0.5, "groups": "filters"}, "groups belongs to the penalty group_lasso"),
    ],
)
def test_wishes_that_say_too_little_or_too_much_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        SparseLearn(**options)


def test_without_kernels_it_is_refused(tmp_path: Path) -> None:
    step = {"sparsity": 0.5, "layers": {"include": ["norm"]}}
    model = mlp(tmp_path, norm=True)
    summary = summarise(model, size_bytes=10_000)
    data = {Role.TRAINING: digits_data(tmp_path / "d").summary}
    (problem,) = SparseLearn(**step).forecast(summary, data).problems
    assert "no kernels" in problem.message
    with pytest.raises(NotApplicable, match="nothing in the selected layers"):
        learned(tmp_path / "run", model, **step)
    fine = SparseLearn(sparsity=0.5).forecast(summary, data)
    assert fine.problems == ()
    assert fine.model_after.nonzero_parameters < 0.6 * summary.parameters
