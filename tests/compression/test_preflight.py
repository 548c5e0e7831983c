"""What is refused before it is queued, and what is foretold."""

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from compression.errors import CompressionError, SelectorMatchedNothing
from compression.method import Role
from compression.preflight import Preflight, preflight
from compression.spec import CompressionSpec
from compression.summary import ArraySummary, DatasetSummary, ModelSummary
from tests.compression.models import layer_summary, model_summary

CONV = layer_summary("conv", "Conv", 8, 3, 3, 3)
FC = layer_summary("fc", "Gemm", 10, 8, zeros=60)
MODEL = model_summary(CONV, FC)


def dataset(labels: str | None = "int64", shape: tuple[int, ...] = (20, 3, 8, 8)) -> DatasetSummary:
    arrays = [ArraySummary(name="image", dtype="float32", shape=shape)]
    if labels:
        arrays.append(ArraySummary(name="labels", dtype=labels, shape=shape[:1]))
    return DatasetSummary(format="npz", samples=shape[0], size_bytes=1000, arrays=tuple(arrays))


def check(
    *steps: Mapping[str, Any],
    model: ModelSummary = MODEL,
    data: Mapping[Role, DatasetSummary] | None = None,
    **evaluation: Any,
) -> Preflight:
    spec = CompressionSpec.model_validate({"steps": steps, "evaluation": evaluation})
    return preflight(spec, model, data or {})


PRUNE = {"method": "prune_magnitude", "sparsity": 0.5}


def test_a_job_that_fits() -> None:
    result = check(PRUNE, data={Role.EVALUATION: dataset()}, metrics=["accuracy"])
    assert result.ok
    assert result.problems == result.all_problems() == ()
    assert result.steps[0].layers == ("conv", "fc")
    assert result.estimated_size_bytes == MODEL.size_bytes
    assert result.estimated_size_ratio == 1.0
    assert result.peak_memory_bytes >= MODEL.size_bytes
    assert result.seconds > 0


def test_zeros_are_foretold_but_shrink_nothing() -> None:
    (step,) = check(PRUNE).steps
    assert [warning.code for warning in step.warnings] == ["zeros_only"]
    assert "not smaller" in step.warnings[0].message
    spec = CompressionSpec.model_validate({"steps": [PRUNE]})
    after = spec.steps[0].forecast(MODEL, {}).model_after
    assert [after.layer(name).weight.zeros for name in ("conv", "fc")] == [108, 60]
    assert after.nonzero_parameters == MODEL.nonzero_parameters - 108


def test_a_weight_that_layers_share_shrinks_once() -> None:
    matrix = layer_summary("there", "MatMul", 100, 100)
    back = matrix.model_copy(update={"name": "back"})
    tied = model_summary(matrix, back, size_bytes=40_500, weight_bytes=40_000)
    quantize = {"method": "quantize_weights"}
    assert 3 < check(quantize, model=tied).estimated_size_ratio < 4
    one_only = check({**quantize, "layers": {"include": ["back"]}}, model=tied)
    assert one_only.estimated_size_ratio == 1.0


def test_selector_that_matches_nothing_lists_near_names() -> None:
    result = check(PRUNE, {**PRUNE, "layers": {"include": ["cnv"]}})
    assert not result.ok
    assert result.steps[0].problems == ()
    (problem,) = result.steps[1].problems
    assert problem.code == "selector_matched_nothing"
    assert "conv" in (problem.hint or "")
    assert result.all_problems()[0].where == "steps.1: cnv"
    error = problem.as_error()
    assert isinstance(error, SelectorMatchedNothing)
    assert isinstance(error, CompressionError)


def test_quantized_layers_are_refused_with_the_reason() -> None:
    model = model_summary(CONV, layer_summary("q", "Gemm", 4, 4, dtype="int8"))
    (problem,) = check({**PRUNE, "layers": {"include": ["q"]}}, model=model).steps[0].problems
    assert problem.code == "not_applicable"
    assert "already quantized" in problem.message
    only = model_summary(layer_summary("q", "Gemm", 4, 4, dtype="int8"))
    (problem,) = check(PRUNE, model=only).steps[0].problems
    assert "none" in problem.message


def test_data_that_does_not_fit_names_the_place() -> None:
    result = check(PRUNE, data={Role.EVALUATION: dataset(shape=(20, 1, 8, 8))})
    (problem,) = result.problems
    assert (problem.code, problem.where) == ("data_mismatch", "data.evaluation.image")
    assert not result.ok


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        ({}, "data_missing", "the job names none"),
        ({Role.EVALUATION: dataset(labels=None)}, "data_missing", "no array named 'labels'"),
        ({Role.EVALUATION: dataset(labels="float32")}, "data_mismatch", "class numbers"),
    ],
)
def test_metrics_need_labels(data: dict[Role, DatasetSummary], code: str, words: str) -> None:
    (problem,) = check(PRUNE, data=data, metrics=["accuracy"]).problems
    assert problem.code == code
    assert words in problem.message


def test_regression_takes_float_labels() -> None:
    assert check(PRUNE, data={Role.EVALUATION: dataset(labels="float32")}, metrics=["mse"]).ok


def test_float_labels_with_a_second_axis_may_be_one_hot() -> None:
    data = dataset(labels=None)
    one_hot = ArraySummary(name="labels", dtype="float32", shape=(20, 10))
    data = data.model_copy(update={"arrays": (*data.arrays, one_hot)})
    assert check(PRUNE, data={Role.EVALUATION: data}, metrics=["accuracy"]).ok


def test_without_evaluation_data_only_fidelity() -> None:
    (warning,) = check(PRUNE).warnings
    assert warning.code == "no_evaluation_data"
    assert "fidelity only" in warning.message
    assert check(PRUNE, data={Role.EVALUATION: dataset()}).warnings == ()


def test_unused_data_is_a_warning() -> None:
    data = {Role.EVALUATION: dataset(), Role.TRAINING: dataset()}
    assert [warning.code for warning in check(PRUNE, data=data).warnings] == ["unused_data"]


def test_unknown_operators_are_refused() -> None:
    foreign = {"domains": {"": 17, "acme.ops": 1}, "operators": {"Conv": 1, "acme.ops::Magic": 2}}
    (problem,) = check(PRUNE, model=MODEL.model_copy(update=foreign)).problems
    assert problem.code == "unsupported_model"
    assert "acme.ops" in problem.message
    declared = {"domains": {"": 17, "acme.ops": 1}}
    assert check(PRUNE, model=MODEL.model_copy(update=declared)).ok
    assert check(PRUNE, model=MODEL.model_copy(update={**foreign, "functions": 2})).ok


def test_no_heavy_imports() -> None:
    code = (
        "import sys, compression.preflight, compression.job; "
        "print({'torch', 'onnxruntime', 'onnx_ir', 'pyarrow', 'PIL'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
