"""sparse_code: dictionaries and codes that the runtime folds into the weights they stand for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from compression.errors import DataMissing, NotApplicable
from compression.graph import summarise
from compression.method import StepOutcome
from compression.methods.finetune import Finetune
from compression.methods.sparse_code import SparseCode
from compression.quantization.affine import sqnr_db
from tests.compression.distillation.networks import digits
from tests.compression.quantization import graphs
from tests.compression.training.learning import (
    Breaking,
    BrokenOff,
    accuracy,
    arrays,
    context,
    digits_data,
    mlp,
)

RNG = np.random.default_rng(11)


def run(
    model: onnx.ModelProto, folder: Path, *, samples: int = 0, checkpoints: Any = None, **parameters: Any
) -> tuple[StepOutcome, Path]:
    step = SparseCode.model_validate({"method": "sparse_code", "rounds": 4, "error": None, **parameters})
    given = graphs.context(folder, model if samples else None, samples or 8)
    given = replace(given, checkpoints=checkpoints) if checkpoints else given
    outcome = step.apply(graphs.opened(model, folder), given)
    return outcome, graphs.written(outcome.model, folder)


def weight_of(path: Path, name: str) -> np.ndarray:
    """What the runtime makes of a weight: the constant in the model as it optimizes it."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path.with_suffix(".folded.onnx"))
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    stored = onnx.load(path.with_suffix(".folded.onnx")).graph
    assert not {node.op_type for node in stored.node} & {"Gather", "BitShift", "CumSum"}
    return numpy_helper.to_array(next(item for item in stored.initializer if item.name == name))


def product(weight: np.ndarray, *, opset: int = 13) -> onnx.ModelProto:
    """x (n, inputs) times a weight (inputs, outputs)."""
    shape = weight.shape
    return graphs.build(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="m")],
        [numpy_helper.from_array(weight.astype(np.float32), "w")],
        [("x", TensorProto.FLOAT, ["n", shape[0]])],
        [("y", TensorProto.FLOAT, ["n", shape[1]])],
        opset=opset,
    )


def sparse_sums(inputs: int, outputs: int, *, block: int = 16, nonzeros: int = 2) -> np.ndarray:
    """Weights whose blocks are sums of few of 24 atoms."""
    atoms = RNG.normal(size=(24, block))
    count = outputs * inputs // block
    gains = np.zeros((count, 24))
    for row in gains:
        row[RNG.choice(24, nonzeros, replace=False)] = RNG.normal(size=nonzeros)
    return (gains @ atoms).reshape(outputs, inputs).T


@pytest.mark.parametrize("codes", ["bits", "bytes"])
@pytest.mark.parametrize(
    "options",
    [
        {"atoms": 24, "nonzeros": 2, "value_bits": 8},
        {"atoms": 200, "nonzeros": 3, "value_bits": 5, "block": 12},
        {"atoms": 24, "nonzeros": 4, "value_bits": 6, "error": 0.2},
    ],
)
def test_the_runtime_folds_codes_into_the_weight_that_is_reported(
    options: dict[str, Any], codes: str, tmp_path: Path
) -> None:
    weight = sparse_sums(128, 160)
    outcome, path = run(product(weight), tmp_path, codes=codes, **options)
    found, numbers = weight_of(path, "w"), outcome.layers[0].numbers
    assert found.shape == weight.shape
    error = np.linalg.norm(found - weight) / np.linalg.norm(weight)
    assert numbers["weight_error"] == pytest.approx(error, rel=1e-3)
    assert numbers["sqnr_db"] == pytest.approx(sqnr_db(weight, found), abs=0.01)
    assert error <= options.get("error", 1.0)


def test_weights_that_are_sparse_sums_are_found_again(tmp_path: Path) -> None:
    weight = sparse_sums(128, 320)
    _, path = run(product(weight), tmp_path, atoms=32, block=16, nonzeros=2, value_bits=8, rounds=40)
    assert sqnr_db(weight, weight_of(path, "w")) > 15


@pytest.mark.parametrize("error", [None, 0.3])
@pytest.mark.parametrize("shape", [(64, 96), (160, 200)])
def test_stored_bytes_are_those_of_the_file(
    shape: tuple[int, int], error: float | None, tmp_path: Path
) -> None:
    model = product(RNG.laplace(size=shape) * 0.1)
    outcome, path = run(model, tmp_path, nonzeros=6, error=error, value_bits=6)
    numbers = outcome.layers[0].numbers
    saved = (tmp_path / "original.onnx").stat().st_size - path.stat().st_size
    assert numbers["stored_bytes_before"] == 4 * np.prod(shape)
    assert numbers["stored_bytes_before"] - numbers["stored_bytes_after"] == pytest.approx(saved, abs=40)
    assert outcome.details["bytes_after"] == numbers["stored_bytes_after"]


@pytest.mark.parametrize("name", [name for name in graphs.ALL if name != "depthwise"])
def test_models_load_and_answer_nearly_as_before(name: str, tmp_path: Path) -> None:
    model = graphs.ALL[name]()
    outcome, path = run(model, tmp_path, nonzeros=8, value_bits=8, codes="bytes", error=0.2)
    given = graphs.feeds(model, 2)
    before, after = graphs.answers(tmp_path / "original.onnx", given), graphs.answers(path, given)
    for one, two in zip(before, after, strict=True):
        assert one.dtype == two.dtype
        assert np.abs(one.astype(np.float64) - two).max() < max(np.abs(one).max(), 1e-3)
    if any(layer.changed for layer in outcome.layers):
        assert path.stat().st_size < (tmp_path / "original.onnx").stat().st_size


@pytest.mark.parametrize("opset", [7, 10, 13, 21])
def test_every_opset_takes_the_codes(opset: int, tmp_path: Path) -> None:
    weight = RNG.normal(size=(100, 90))
    _, path = run(product(weight, opset=opset), tmp_path, block=16, nonzeros=6, value_bits=5)
    assert 0 < sqnr_db(weight, weight_of(path, "w")) < 30


def test_a_layer_that_would_not_shrink_is_left(tmp_path: Path) -> None:
    outcome, _ = run(product(RNG.normal(size=(8, 8))), tmp_path)
    assert "and the weights take 256" in outcome.layers[0].note
    outcome, path = run(product(RNG.normal(size=(64, 64))), tmp_path, nonzeros=16, error=0.001, value_bits=8)
    (layer,) = outcome.layers
    assert not layer.changed
    assert "dictionary and codes would take" in layer.note or "over the bound of 0.001" in layer.note
    assert outcome.unchanged
    same = (onnx.load(file).graph.initializer[0].raw_data for file in (path, tmp_path / "original.onnx"))
    assert len(set(same)) == 1


def test_a_bound_on_the_error_that_cannot_be_kept_leaves_the_layer(tmp_path: Path) -> None:
    outcome, _ = run(product(RNG.normal(size=(64, 128))), tmp_path, nonzeros=2, error=0.1, value_bits=4)
    assert "over the bound of 0.1: 2 nonzeros of 4 bits are too few" in outcome.layers[0].note


def test_a_looser_bound_takes_fewer_bytes(tmp_path: Path) -> None:
    model = product(RNG.laplace(size=(128, 192)))
    found = [
        run(model, tmp_path, nonzeros=12, error=e, value_bits=6)[0].layers[0].numbers for e in (0.2, 0.5)
    ]
    assert found[0]["weight_error"] <= 0.2
    assert found[0]["weight_error"] < found[1]["weight_error"] <= 0.5
    assert found[1]["stored_bytes_after"] < found[0]["stored_bytes_after"]


def test_blocks_of_zeros_take_no_entries(tmp_path: Path) -> None:
    weight = RNG.normal(size=(128, 256))
    weight[:, 16:] = 0
    outcome, path = run(product(weight), tmp_path, nonzeros=4, block=16)
    found = weight_of(path, "w")
    assert not found[:, 16:].any()
    assert outcome.layers[0].numbers["nonzeros_per_block"] < 0.3
    assert outcome.layers[0].numbers["stored_bytes_after"] < 5500


def correlated(inputs: int, samples: int) -> dict[str, np.ndarray]:
    """What a layer sees where few directions count."""
    few = RNG.normal(size=(samples, inputs // 8)) @ RNG.normal(size=(inputs // 8, inputs))
    return {"x": (few + 0.1 * RNG.normal(size=few.shape) + 1).astype(np.float32)}


def test_data_tells_what_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = correlated(96, 512)
    monkeypatch.setattr(graphs, "feeds", lambda model, seed: {"x": seen["x"][seed : seed + 1]})
    weight = RNG.normal(size=(96, 128))
    model = product(weight)
    errors = []
    for samples in (0, 256):
        folder = tmp_path / str(samples)
        folder.mkdir()
        outcome, path = run(model, folder, samples=samples)
        new = {"x": seen["x"][256:]}
        before, after = (graphs.answers(p, new)[0] for p in (folder / "original.onnx", path))
        errors.append(np.linalg.norm(before - after) / np.linalg.norm(before))
        assert ("output_error" in outcome.layers[0].numbers) == bool(samples)
    assert errors[1] < 0.6 * errors[0]


def test_activations_need_data(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="whiten: activations"):
        run(product(RNG.normal(size=(64, 64))), tmp_path, whiten="activations")


def test_infinite_weights_are_refused_by_name(tmp_path: Path) -> None:
    weight = RNG.normal(size=(64, 64))
    weight[3, 3] = np.inf
    with pytest.raises(NotApplicable, match="NaN or infinity") as caught:
        run(product(weight), tmp_path)
    assert caught.value.where == "w"


def test_another_attempt_takes_up_finished_layers(tmp_path: Path) -> None:
    model = graphs.recurrent()
    options = {"nonzeros": 3, "codes": "bytes", "rounds": 5}
    whole = run(model, tmp_path, **options)[1].read_bytes()
    with pytest.raises(BrokenOff):
        run(model, tmp_path, checkpoints=Breaking(tmp_path, dies_at=1), **options)
    assert run(model, tmp_path, checkpoints=Breaking(tmp_path), **options)[1].read_bytes() == whole


def test_the_forecast_tells_the_size(tmp_path: Path) -> None:
    model = product(RNG.normal(size=(128, 256)))
    step = SparseCode(nonzeros=4, error=None)
    _, path = run(model, tmp_path, nonzeros=4)
    original = graphs.opened(model, tmp_path)
    told = step.forecast(summarise(original, size_bytes=(tmp_path / "original.onnx").stat().st_size), {})
    assert told.model_after.size_bytes == pytest.approx(path.stat().st_size, rel=0.1)


@pytest.mark.parametrize("error", [None, 0.5])
def test_finetune_trains_the_dictionary_and_keeps_the_codes(error: float | None, tmp_path: Path) -> None:
    pixels, labels = digits()
    data = digits_data(tmp_path / "data", 1200)
    model = (
        Finetune(epochs=6, learning_rate=5e-3)
        .apply(mlp(tmp_path / "m", hidden=48), context(tmp_path, data))
        .model
    )
    before = accuracy(model, pixels[1200:], labels[1200:])
    step = SparseCode(error=error, nonzeros=1, atoms=16, value_bits=3, rounds=4)
    coded = step.apply(model, replace(context(tmp_path, data), data={})).model
    stored, worse = arrays(coded), accuracy(coded, pixels[1200:], labels[1200:])
    trained = Finetune(epochs=4, learning_rate=2e-3).apply(coded, context(tmp_path, data)).model
    after, better = arrays(trained), accuracy(trained, pixels[1200:], labels[1200:])
    assert worse < before - 0.02
    assert better > worse + (before - worse) / 2
    assert stored.keys() == after.keys()
    changed = {name for name in stored if not np.array_equal(stored[name], after[name])}
    assert any(name.endswith("dictionary") for name in changed)
    assert not any(
        name.endswith(("atoms", "values", "values1", "counts", "factor", "middle")) for name in changed
    )
