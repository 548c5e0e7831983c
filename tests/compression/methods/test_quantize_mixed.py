"""quantize_mixed on trained digits and on models made to be sensitive in one place."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from compression.checkpoints import NoCheckpoints
from compression.errors import NotApplicable
from compression.graph import load, save
from compression.method import Role, StepContext, StepOutcome
from compression.methods.finetune import Finetune
from compression.methods.quantize_mixed import QuantizeMixed
from compression.methods.quantize_weights import QuantizeWeights
from compression.quantization.affine import sqnr_db
from compression.quantization.weights import quantize_weight
from tests.compression.distillation.networks import digits
from tests.compression.quantization import graphs
from tests.compression.training.learning import Breaking, accuracy, context, digits_data, mlp, resumed, same
from tests.compression.training.learning import arrays as stored

TEST = slice(1200, None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    step = Finetune(epochs=8, learning_rate=5e-3)
    made = step.apply(mlp(folder / "mlp", hidden=64), context(folder, digits_data(folder / "data", 1200)))
    return save(made.model, folder / "trained.onnx")[0]


def grounds(folder: Path, **changes: Any) -> StepContext:
    """Calibration data are the digits that the network has learned from, with their labels."""
    data = digits_data(folder / "data", 600)
    return replace(context(folder, data, **changes), data={Role.CALIBRATION: data})


def mixed(model: Path, folder: Path, checkpoints: Any = None, **fields: Any) -> StepOutcome:
    given = {} if checkpoints is None else {"checkpoints": checkpoints}
    fields = {"max_seconds": 20, **fields}
    return QuantizeMixed.model_validate(fields).apply(load(model), grounds(folder, **given))


def outputs(model: ir.Model, pixels: np.ndarray) -> np.ndarray:
    from compression.runtime import open_session, run

    (scores,) = run(open_session(model, device="cpu", threads=1), {"image": pixels}).values()
    return np.asarray(scores)


def size(model: ir.Model, folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    return save(model, folder / "size.onnx")[0].stat().st_size


@pytest.mark.parametrize("floor", [22, 30, 45])
def test_the_outputs_reach_what_was_asked_on_other_samples(floor, trained, tmp_path):
    outcome = mixed(trained, tmp_path, min_sqnr_db=floor)
    pixels, _ = digits()
    reached = sqnr_db(outputs(load(trained), pixels[TEST]), outputs(outcome.model, pixels[TEST]))
    assert reached > floor - 1
    assert outcome.details["sqnr_db"] >= floor
    assert size(outcome.model, tmp_path / "s") < trained.stat().st_size
    json.dumps(outcome.details, allow_nan=False)


def test_lower_floors_make_smaller_files(trained, tmp_path):
    sizes = [
        size(mixed(trained, tmp_path / str(floor), min_sqnr_db=floor).model, tmp_path / str(floor))
        for floor in (15, 30, 60)
    ]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]


def test_at_the_size_of_four_bits_it_is_no_less_true(trained, tmp_path):
    step = QuantizeWeights.model_validate(
        {"bits": 4, "block_size": 32, "algorithm": "gptq", "storage": "folded"}
    )
    uniform = step.apply(load(trained), grounds(tmp_path / "u")).model
    most = size(uniform, tmp_path / "uniform")
    ours = mixed(trained, tmp_path / "m", max_size_bytes=most).model
    pixels, _ = digits()
    expected = outputs(load(trained), pixels[TEST])
    assert size(ours, tmp_path / "ours") <= most
    assert (
        sqnr_db(expected, outputs(ours, pixels[TEST]))
        > sqnr_db(expected, outputs(uniform, pixels[TEST])) - 0.5
    )


def test_a_metric_may_not_drop_further(trained, tmp_path):
    outcome = mixed(trained, tmp_path, max_metric_drop=0.01, metric="accuracy")
    pixels, labels = digits()
    before = accuracy(load(trained), pixels[TEST], labels[TEST])
    assert accuracy(outcome.model, pixels[TEST], labels[TEST]) > before - 0.03
    assert outcome.details["metric_drop"] <= 0.01
    assert size(outcome.model, tmp_path / "s") < trained.stat().st_size / 3


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"choices": ["int4"], "min_sqnr_db": 60}, "min_sqnr_db"),
        ({"max_size_bytes": 500}, "max_size_bytes"),
    ],
)
def test_a_budget_that_cannot_be_held_is_refused(fields, where, trained, tmp_path):
    with pytest.raises(NotApplicable) as caught:
        mixed(trained, tmp_path, **fields)
    assert caught.value.where == where and caught.value.hint


def delicate(folder: Path) -> Path:
    """Three products in a row; the second one's weights have an outlier that takes the others' bits away."""
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=(64, 64)).astype(np.float32) / 8 for name in ("a", "b", "c")}
    weights["b"][:, :] *= 0.02
    weights["b"][np.arange(64), np.arange(64)] = 0
    weights["b"][::2, :] *= 50
    weights["b"][1, :] = 300 / 64
    nodes = [
        helper.make_node("MatMul", [given, name], [made], name=f"layer_{name}")
        for given, name, made in (("x", "a", "h"), ("h", "b", "g"), ("g", "c", "y"))
    ]
    model = graphs.build(
        nodes,
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
        [graphs.X],
        [graphs.Y],
    )
    return save(graphs.opened(model, folder), folder / "delicate.onnx")[0]


def run_plain(path: Path, folder: Path, **fields: Any) -> StepOutcome:
    import onnx

    model = onnx.load(path)
    return QuantizeMixed.model_validate({"max_seconds": 20, **fields}).apply(
        load(path), graphs.context(folder, model, samples=48)
    )


def test_sensitivity_is_what_numpy_tells(tmp_path):
    """One layer as int8: noise over signal of x W on the samples measured on."""
    import onnx

    model = graphs.plain()
    path = save(graphs.opened(model, tmp_path), tmp_path / "plain.onnx")[0]
    outcome = run_plain(path, tmp_path, min_sqnr_db=20, choices=["int8", "float32"], samples=8)
    weight = numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    made = quantize_weight(weight, (1,))
    error = made.integers * made.parameters.scale - weight
    given = np.concatenate([graphs.feeds(model, seed=seed)["x"] for seed in range(8)]).astype(np.float64)
    expected = np.square(given @ error).sum() / np.square(given @ weight).sum()
    (found,) = outcome.details["sensitivity"].values()
    assert outcome.details["samples_in_a_trial"] == 8
    assert found["alone"]["int8"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", ["alone", "rest", "both"])
def test_the_delicate_layer_gets_more_bits(kind, tmp_path):
    outcome = run_plain(delicate(tmp_path), tmp_path, min_sqnr_db=18, sensitivity=kind, algorithm="rtn")
    bits = {layer.layer: layer.numbers.get("bits", 32) for layer in outcome.layers}
    assert bits["layer_b"] >= max(bits["layer_a"], bits["layer_c"])
    assert outcome.details["sqnr_db"] >= 18


def test_a_killed_search_ends_with_the_same_bytes(trained, tmp_path):
    def work(folder: Path, checkpoints: Breaking | NoCheckpoints) -> ir.Model:
        return mixed(trained, folder, checkpoints=checkpoints, min_sqnr_db=25).model

    undisturbed = stored(work(tmp_path / "undisturbed", NoCheckpoints()))
    assert same(resumed(tmp_path / "resumed", work, [2, 3]), undisturbed)


def test_a_broken_checkpoint_counts_as_none(trained, tmp_path):
    (tmp_path / "checkpoint").write_bytes(b"\xff{")
    outcome = mixed(trained, tmp_path / "a", checkpoints=Breaking(tmp_path), min_sqnr_db=25)
    assert outcome.details["sqnr_db"] >= 25


@pytest.mark.parametrize("name", graphs.ALL)
def test_every_model_is_faithful_or_refused_with_a_reason(name, tmp_path):
    model = graphs.ALL[name]()
    step = QuantizeMixed.model_validate({"max_seconds": 5})
    try:
        outcome = step.apply(graphs.opened(model, tmp_path), graphs.context(tmp_path, model))
    except NotApplicable as refusal:
        assert refusal.message
        return
    path = graphs.written(outcome.model, tmp_path)
    given = graphs.feeds(model, 2, seed=31)
    before, after = graphs.answers(tmp_path / "original.onnx", given), graphs.answers(path, given)
    assert min(sqnr_db(left, right) for left, right in zip(before, after, strict=True)) > 22
