"""factorize: chains that compute the same where a layer has low rank, and lose little where data tells what counts."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from pydantic import ValidationError

from compression.data import Dataset, open_dataset
from compression.errors import DataMissing, NotApplicable
from compression.graph import layers
from compression.graph.macs import count_macs
from compression.method import Role, StepOutcome
from compression.methods.factorize import Factorize
from compression.quantization.affine import sqnr_db
from tests.compression.quantization import graphs

RNG = np.random.default_rng(4)
Model = onnx.ModelProto


def conv(weight: np.ndarray, **attributes: Any) -> Model:
    """One convolution of a kernel (outputs, inputs, ...) with a bias; 9 to 11 positions along each axis."""
    outputs, inputs, *kernel = weight.shape
    bias = RNG.normal(size=outputs)
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="layer", **attributes)
    stored = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in (("w", weight), ("b", bias))]
    sizes = [9 + axis for axis in range(len(kernel))]
    given = [("x", TensorProto.FLOAT, ["n", inputs, *sizes])]
    return graphs.build([node], stored, given, [("y", TensorProto.FLOAT, None)])


def gemm(weight: np.ndarray) -> Model:
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="layer", transB=1)
    stored = {"w": weight, "b": RNG.normal(size=len(weight))}
    made = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in stored.items()]
    flat = [("x", TensorProto.FLOAT, ["n", weight.shape[1]])], [("y", TensorProto.FLOAT, ["n", len(weight)])]
    return graphs.build([node], made, *flat)


def of_parts(parts: int, *shape: int) -> np.ndarray:
    """A sum of outer products: of low rank in every form there is."""
    whole = np.zeros(shape)
    for _ in range(parts):
        part = np.array(1.0)
        for size in shape:
            part = np.multiply.outer(part, RNG.normal(size=size))
        whole += part
    return whole


def run(model: Model, folder: Path, *, samples: int = 0, **parameters: Any) -> tuple[StepOutcome, Path]:
    step = Factorize.model_validate({"method": "factorize", **parameters})
    given = graphs.context(folder, model if samples else None, samples or 8)
    outcome = step.apply(graphs.opened(model, folder), given)
    return outcome, graphs.written(outcome.model, folder)


def truth(model: Model, folder: Path, path: Path) -> float:
    given = graphs.feeds(model, 3, seed=9)
    before, after = graphs.answers(folder / "original.onnx", given), graphs.answers(path, given)
    assert before[0].shape == after[0].shape
    return min(sqnr_db(one, two) for one, two in zip(before, after, strict=True))


CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "1-D": ((32, 24, 5), {"strides": [2], "pads": [2, 1]}),
    "2-D": ((32, 24, 3, 3), {"strides": [2, 1], "pads": [1, 0, 1, 2]}),
    "dilated": ((32, 24, 3, 3), {"dilations": [2, 1], "pads": [2, 1, 2, 1]}),
    "same size": ((32, 24, 3, 3), {"strides": [1, 2], "auto_pad": "SAME_UPPER"}),
    "3-D": ((24, 20, 3, 2, 3), {"pads": [1, 1, 1, 1, 0, 1]}),
    "1x1": ((48, 40, 1, 1), {"strides": [2, 2]}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", ["auto", "tucker", "spatial", "cp"])
def test_a_kernel_of_low_rank_computes_the_same(form: str, case: str, tmp_path: Path) -> None:
    shape, attributes = CASES[case]
    model = conv(of_parts(4, *shape), **attributes)
    outcome, path = run(model, tmp_path, form=form, energy=0.9999999)
    assert outcome.layers[0].changed, outcome.layers[0].note
    assert truth(model, tmp_path, path) > 60
    macs = count_macs(graphs.opened(onnx.load(path), tmp_path)).total
    assert macs < count_macs(graphs.opened(model, tmp_path)).total / 1.5
    assert path.stat().st_size < (tmp_path / "original.onnx").stat().st_size


def test_a_matrix_of_low_rank_computes_the_same(tmp_path: Path) -> None:
    model = gemm(of_parts(6, 64, 80))
    outcome, path = run(model, tmp_path, vbmf=True)
    assert truth(model, tmp_path, path) > 80
    assert [node.op_type for node in onnx.load(path).graph.node] == ["MatMul", "Gemm"]
    assert "rank 8" in outcome.layers[0].note


def two_layers() -> Model:
    """The first has low rank, about; the second has not."""
    nodes = [
        helper.make_node("MatMul", ["x", "first_w"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "second_w"], ["y"], name="second"),
    ]
    weights = {
        "first_w": of_parts(8, 64, 64) + RNG.normal(size=(64, 64)) * 0.05,
        "second_w": RNG.normal(size=(64, 64)),
    }
    made = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    return graphs.build(nodes, made, [graphs.X], [graphs.Y])


def test_a_budget_takes_from_those_that_lose_little(tmp_path: Path) -> None:
    model = two_layers()
    outcome, path = run(model, tmp_path, macs_ratio=0.7)
    assert [layer.changed for layer in outcome.layers] == [True, False]
    macs = count_macs(graphs.opened(onnx.load(path), tmp_path)).total or 0
    assert macs <= 0.7 * (count_macs(graphs.opened(model, tmp_path)).total or 0)
    (tmp_path / "even").mkdir()
    _, even = run(model, tmp_path / "even", ratio=0.7)
    assert truth(model, tmp_path, path) > truth(model, tmp_path, even) + 10


def test_a_budget_that_cannot_be_met_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="cannot be met") as refused:
        run(two_layers(), tmp_path, max_macs=10)
    assert refused.value.where == "max_macs"


def learned(model: Model, folder: Path, data: Dataset, **parameters: Any) -> tuple[StepOutcome, float]:
    """What a step makes of a model that it sees this data through, and the SQNR of the outputs on it."""
    folder.mkdir()
    context = graphs.context(folder)
    context.data[Role.CALIBRATION] = data  # type: ignore[index]
    outcome = Factorize.model_validate(parameters).apply(graphs.opened(model, folder), context)
    path = graphs.written(outcome.model, folder)
    given = {"x": data.column("x").take(np.arange(len(data)))}
    before, after = graphs.answers(folder / "original.onnx", given), graphs.answers(path, given)
    return outcome, sqnr_db(before[0], after[0])


@pytest.fixture
def correlated(tmp_path: Path) -> Iterator[Dataset]:
    """200 samples whose entries go together, with a mean that is not zero."""
    random = np.random.default_rng(1)
    mixing = random.normal(size=(64, 64)) * np.geomspace(3, 0.01, 64)[:, None]
    np.savez(tmp_path / "data.npz", x=(random.normal(size=(200, 64)) @ mixing + 1).astype(np.float32))
    with closing(open_dataset(tmp_path / "data.npz", tmp_path / "opened")) as data:
        yield data


def test_what_data_tells_is_worth_more_than_the_weights(correlated: Dataset, tmp_path: Path) -> None:
    model = gemm(RNG.normal(size=(48, 64)))
    found = {
        whiten: learned(model, tmp_path / whiten, correlated, ratio=0.4, whiten=whiten)[1]
        for whiten in ("none", "activations")
    }
    assert found["activations"] > found["none"] + 5


def test_biases_take_up_the_mean_error(correlated: Dataset, tmp_path: Path) -> None:
    model = gemm(RNG.normal(size=(48, 64)))
    learned(model, tmp_path / "job", correlated, ratio=0.4)
    given = {"x": correlated.column("x").take(np.arange(len(correlated)))}
    before, after = (graphs.answers(path, given)[0] for path in sorted((tmp_path / "job").glob("*.onnx")))
    assert np.abs(before - after).max() > 0.1
    assert np.abs(before.mean(axis=0) - after.mean(axis=0)).max() < 1e-3


def test_outputs_that_move_the_models_count_most(correlated: Dataset, tmp_path: Path) -> None:
    """The second layer hardly reads what follows the first 8 outputs: errors there cost little."""
    model = two_layers()
    read = np.where(np.arange(64) < 8, 1, 0.01)[:, None]
    weights = {"first_w": RNG.normal(size=(64, 64)), "second_w": RNG.normal(size=(64, 64)) * read}
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name].astype(np.float32), tensor.name))
    found = {
        weighed: learned(model, tmp_path / str(weighed), correlated, ratio=0.25, weigh_outputs=weighed)
        for weighed in (False, True)
    }
    assert found[True][0].details["weighed"] == 2
    assert found[True][1] > found[False][1] + 3


def test_a_model_without_gradients_is_factorized_nevertheless(correlated: Dataset, tmp_path: Path) -> None:
    model = two_layers()
    model.graph.node.append(helper.make_node("ArgMax", ["y"], ["class"], axis=1, name="argmax"))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("class", TensorProto.INT64, None))
    folder = tmp_path / "job"
    folder.mkdir()
    context = graphs.context(folder)
    context.data[Role.CALIBRATION] = correlated  # type: ignore[index]
    outcome = Factorize(ratio=0.5).apply(graphs.opened(model, folder), context)
    assert outcome.details["whitened"] == 2 and outcome.details["weighed"] == 0
    assert any("no output of the model has a gradient" in note for note in outcome.notes)


def test_what_would_save_nothing_stays(tmp_path: Path) -> None:
    model = gemm(RNG.normal(size=(4, 64)))
    outcome, path = run(model, tmp_path, ratio=0.5)
    assert not outcome.layers[0].changed
    assert "saves" in outcome.layers[0].note
    assert outcome.unchanged
    assert len(layers(graphs.opened(onnx.load(path), tmp_path))) == 1


def test_data_that_is_asked_for_is_missed(tmp_path: Path) -> None:
    with pytest.raises(DataMissing):
        run(gemm(RNG.normal(size=(48, 64))), tmp_path, ratio=0.5, whiten="activations")


@pytest.mark.parametrize("goals", [{}, {"ratio": 0.5, "energy": 0.9}, {"vbmf": True, "max_macs": 5}])
def test_exactly_one_goal(goals: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="exactly one"):
        Factorize.model_validate({"method": "factorize", **goals})
