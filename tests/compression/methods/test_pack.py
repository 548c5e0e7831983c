"""pack in whole jobs: the packed file is the delivered model, whatever steps came before."""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from compression.coding import inspect, unpack_file
from compression.job import Job, Result
from compression.pipeline import run
from compression.spec import CompressionSpec
from tests.compression.models import small_model, weights_of

PACK = {"method": "pack"}
STEPS = [
    [],
    [{"method": "prune_magnitude", "sparsity": 0.5}, {"method": "quantize_weights"}],
]


def execute(folder: Path, steps: Sequence[Mapping[str, Any]], model: Path) -> tuple[Path, Result]:
    spec = CompressionSpec.model_validate({"steps": steps, "evaluation": {"latency": {"runs": 5}}})
    job = Job(spec=spec, model=model, folder=folder / "job", threads=1)
    return job.folder / "outputs", run(job, lambda event: None, nullcontext)


@pytest.mark.parametrize("before", STEPS, ids=len)
def test_unpacks_to_the_delivered_model(tmp_path: Path, before: list[dict[str, Any]]) -> None:
    outputs, result = execute(tmp_path, [*before, PACK], small_model(tmp_path / "model"))
    assert "model.packed" in [output.name for output in result.outputs]
    unpack_file(outputs / "model.packed", tmp_path / "back.onnx")
    assert (tmp_path / "back.onnx").read_bytes() == (outputs / "model.onnx").read_bytes()
    size = (outputs / "model.packed").stat().st_size
    assert result.measurements.compressed.packed_bytes == size
    assert result.measurements.original.packed_bytes is None
    step = json.loads((outputs / "report.json").read_text())["steps"][-1]
    assert step["details"]["packed_bytes"] == size
    told = {layer["layer"]: layer for layer in step["layers"]}
    (stored, size) = next(
        (t.stored_bytes, t.size_bytes)
        for t in inspect(outputs / "model.packed").tensors
        if t.name.startswith("conv2.w") and len(t.shape) == 4
    )
    numbers = told["conv2"]["numbers"]
    assert numbers["stored_bytes"] == stored
    assert numbers["packed_ratio"] == pytest.approx(size / stored)
    assert numbers["bits_per_weight"] == pytest.approx(8 * stored / 584)
    assert "packed by" in told["conv2"]["note"]


@pytest.mark.parametrize("bound", [{"max_error": 0.02}, {"min_sqnr_db": 30}], ids=str)
def test_rounds_within_a_bound(tmp_path: Path, bound: dict[str, float]) -> None:
    path = small_model(tmp_path / "model")
    steps = [{**PACK, **bound, "layers": {"exclude": ["fc"]}}]
    outputs, result = execute(tmp_path, steps, path)
    unpack_file(outputs / "model.packed", tmp_path / "back.onnx")
    assert (tmp_path / "back.onnx").read_bytes() == (outputs / "model.onnx").read_bytes()
    before, after = weights_of(path), weights_of(outputs / "model.onnx")
    for name in ("conv1.w", "conv2.w"):
        noise = after[name].astype(np.float64) - before[name]
        assert noise.any()
        if "max_error" in bound:
            assert np.abs(noise).max() <= bound["max_error"]
        else:
            assert 10 * np.log10(np.square(before[name]).sum() / np.square(noise).sum()) >= 30
    for name in ("fc.w", "conv1.b"):
        assert after[name].tobytes() == before[name].tobytes()
    stored = {t.name: t for t in inspect(outputs / "model.packed").tensors}
    assert stored["conv2.w"].codecs[0] in ("steps", "palette")
    assert stored["conv2.w"].stored_bytes < 0.25 * stored["conv2.w"].size_bytes
    layers = json.loads((outputs / "report.json").read_text())["steps"][0]["layers"]
    assert {layer["layer"]: layer["changed"] for layer in layers} == {"conv1": True, "conv2": True}
    assert result.measurements.compressed.packed_bytes is not None


def test_one_bound_at_a_time() -> None:
    with pytest.raises(ValueError, match="not both"):
        CompressionSpec.model_validate({"steps": [{**PACK, "max_error": 0.1, "min_sqnr_db": 30}]})


def test_a_later_step_makes_the_size_no_fact_of_the_result(tmp_path: Path) -> None:
    steps = [PACK, {"method": "prune_magnitude", "sparsity": 0.5}]
    outputs, result = execute(tmp_path, steps, small_model(tmp_path / "model"))
    assert result.measurements.compressed.packed_bytes is None
    unpack_file(outputs / "model.packed", tmp_path / "back.onnx")
    assert (tmp_path / "back.onnx").read_bytes() == (tmp_path / "model").read_bytes()


def test_external_data_comes_in_one_file(tmp_path: Path) -> None:
    """The pipeline writes such a model anew, and what is packed is what it writes."""
    import zipfile

    model = onnx.load(small_model(tmp_path / "plain"))
    (tmp_path / "up").mkdir()
    onnx.save(model, tmp_path / "up" / "m.onnx", save_as_external_data=True, location="w", size_threshold=64)
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        for name in ("m.onnx", "w"):
            archive.write(tmp_path / "up" / name, name)
    outputs, _ = execute(tmp_path, [PACK], tmp_path / "model.zip")
    unpack_file(outputs / "model.packed", tmp_path / "back.onnx")
    assert (tmp_path / "back.onnx").read_bytes() == (outputs / "model.onnx").read_bytes()
