"""store_sparse: the same values in fewer bytes, as onnxruntime and plain onnx read them."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compression.graph import inspect_model, load, save
from compression.job import Job
from compression.method import StepOutcome
from compression.methods.store_sparse import StoreSparse
from compression.pipeline import run as run_job
from compression.spec import CompressionSpec
from tests.compression.models import small_model
from tests.compression.quantization import graphs

RNG = np.random.default_rng(3)


def pruned(model: onnx.ModelProto, sparsity: float) -> onnx.ModelProto:
    """The model with the smallest weights of each tensor at zero, every other of them at -0.0."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        if array.ndim > 1:
            small = np.abs(array) <= np.quantile(np.abs(array.astype(np.float32)), sparsity)
            array[small] = np.where(RNG.random(small.sum()) < 0.5, 0.0, -0.0)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return made


def run(model: onnx.ModelProto, folder: Path, **parameters: object) -> tuple[StepOutcome, Path]:
    step = StoreSparse.model_validate({"method": "store_sparse", **parameters})
    outcome = step.apply(graphs.opened(model, folder), graphs.context(folder))
    return outcome, graphs.written(outcome.model, folder)


@pytest.mark.parametrize("name", graphs.ALL)
def test_every_value_comes_back(name: str, tmp_path: Path) -> None:
    model = pruned(graphs.ALL[name](), 0.9)
    outcome, path = run(model, tmp_path)
    given = graphs.feeds(model, 2)
    before, after = graphs.answers(tmp_path / "original.onnx", given), graphs.answers(path, given)
    assert all(np.array_equal(one, two) for one, two in zip(before, after, strict=True))
    assert any(layer.changed for layer in outcome.layers) == bool(onnx.load(path).graph.sparse_initializer)
    if name not in ("branches", "function"):
        assert path.stat().st_size < (tmp_path / "original.onnx").stat().st_size
    dense = save(load(path), tmp_path / "dense.onnx")[0]
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(dense).graph.initializer}
    for tensor in model.graph.initializer:
        assert np.array_equal(stored[tensor.name], numpy_helper.to_array(tensor))


def test_the_file_passes_onnx_checker_and_says_what_it_holds(tmp_path: Path) -> None:
    model = pruned(graphs.plain(), 0.9)
    outcome, path = run(model, tmp_path)
    onnx.checker.check_model(onnx.load(path))
    (sparse,) = onnx.load(path).graph.sparse_initializer
    array = numpy_helper.to_array(model.graph.initializer[0])
    assert list(sparse.dims) == [64, 64]
    assert np.array_equal(numpy_helper.to_array(sparse.indices), np.flatnonzero(array))
    assert np.array_equal(numpy_helper.to_array(sparse.values), array[array != 0])
    numbers = outcome.layers[0].numbers
    assert numbers["sparsity"] == pytest.approx((array == 0).mean())
    assert numbers["sparsity"] + numbers["density"] == 1
    saved = (tmp_path / "original.onnx").stat().st_size - path.stat().st_size
    assert numbers["stored_bytes_before"] - numbers["stored_bytes_after"] == pytest.approx(saved, abs=40)
    assert inspect_model(path, workdir=tmp_path).warnings == ("sparse initializers were made dense",)


@pytest.mark.parametrize(("sparsity", "smaller"), [(0.6, False), (0.7, True)])
def test_two_thirds_of_zeros_are_where_float32_begins_to_gain(
    sparsity: float, *, smaller: bool, tmp_path: Path
) -> None:
    outcome, path = run(pruned(graphs.plain(), sparsity), tmp_path)
    assert outcome.layers[0].changed == smaller
    assert outcome.unchanged != smaller
    if not smaller:
        assert "60% zeros and would take" in outcome.layers[0].note
        assert not onnx.load(path).graph.sparse_initializer


def test_what_an_unselected_layer_shares_is_left(tmp_path: Path) -> None:
    outcome, _ = run(pruned(graphs.shared(), 0.9), tmp_path, layers={"exclude": ["second"]})
    assert "is shared with 'second', which is not selected" in outcome.layers[0].note


def test_bodies_are_left_with_the_reason(tmp_path: Path) -> None:
    model = graphs.branches()
    for attribute in model.graph.node[0].attribute:
        body = attribute.g
        body.initializer[0].CopyFrom(
            numpy_helper.from_array(np.eye(64, dtype=np.float32), body.initializer[0].name)
        )
    outcome, _ = run(model, tmp_path)
    assert "stands in a body" in outcome.layers[0].note


def test_a_job_leaves_a_sparse_file_and_measures_it(tmp_path: Path) -> None:
    steps = [{"method": "prune_magnitude", "sparsity": 0.9, "scope": "layer"}, {"method": "store_sparse"}]
    job = Job(
        spec=CompressionSpec.model_validate({"steps": steps}),
        model=small_model(tmp_path / "m.onnx"),
        data={},
        models={},
        folder=tmp_path / "job",
        threads=1,
    )
    result = run_job(job, lambda event: None, nullcontext)
    path = tmp_path / "job" / "steps" / "1" / "model.onnx"
    assert len(onnx.load(path).graph.sparse_initializer) == 3
    measured = result.measurements
    assert measured.compressed.size_bytes == path.stat().st_size < measured.original.size_bytes
    assert measured.compressed.sparsity > 0.8


def test_a_later_step_reads_a_sparse_model(tmp_path: Path) -> None:
    _, path = run(pruned(graphs.plain(), 0.9), tmp_path)
    step = {"method": "quantize_weights"}
    job = Job(
        spec=CompressionSpec.model_validate({"steps": [step]}),
        model=path,
        data={},
        models={},
        folder=tmp_path / "job",
        threads=1,
    )
    run_job(job, lambda event: None, nullcontext)
    stored = onnx.load(tmp_path / "job" / "steps" / "0" / "model.onnx").graph
    assert not stored.sparse_initializer
    assert any(tensor.data_type == onnx.TensorProto.INT8 for tensor in stored.initializer)
