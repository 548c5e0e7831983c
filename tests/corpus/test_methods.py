"""Every method on every real model: a faithful result that loads, or a refusal with a reason before the run.

Opt-in (`make test-corpus`): MODELPRESS_CORPUS names the folder of ONNX files. Any folder will do.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from compression import pipeline
from compression.errors import CompressionError
from compression.graph import inspect_model, load
from compression.graph.synthetic import synthesise
from compression.job import Job
from compression.method import Role
from compression.preflight import preflight
from compression.registry import METHODS
from compression.spec import CompressionSpec
from compression.summary import DatasetSummary, ModelSummary

pytestmark = [pytest.mark.corpus, pytest.mark.timeout(900)]
FOLDER = Path(os.environ.get("MODELPRESS_CORPUS", ".corpus"))
MODELS = sorted(FOLDER.glob("*.onnx"))
FAITHFUL_DB = 25
CALIBRATION_SAMPLES = 8


@pytest.fixture(scope="module", params=MODELS or [None], ids=lambda path: path.stem if path else "none")
def model(request: pytest.FixtureRequest) -> Path:
    if request.param is None:
        pytest.skip("no models: run `make test-corpus`")
    return Path(request.param)


@pytest.fixture(scope="module")
def found(model: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelSummary:
    return inspect_model(model, tmp_path_factory.mktemp("inspection"))


@pytest.fixture(scope="module")
def calibration(model: Path, found: ModelSummary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic samples: enough to see that a method copes, not to judge accuracy by."""
    path = tmp_path_factory.mktemp("data") / "calibration.npz"
    feeds = list(
        itertools.islice(synthesise(found.inputs, CALIBRATION_SAMPLES, 0, load(model)), CALIBRATION_SAMPLES)
    )
    stacked = {name: _stacked([feed[name] for feed in feeds]) for name in feeds[0]}
    np.savez(path, **stacked)
    return path


@pytest.mark.parametrize("name", METHODS)
def test_a_real_model_comes_out_sound_or_is_refused(
    name: str, model: Path, found: ModelSummary, calibration: Path, tmp_path: Path
) -> None:
    step: dict[str, Any] = {**METHODS[name].example, "method": name}
    spec = CompressionSpec.model_validate({"steps": [step], "evaluation": {"latency": {"runs": 10}}})
    summaries, data = _data(calibration, tmp_path) if METHODS[name].needs else ({}, {})
    verdict = preflight(spec, found, summaries)
    if not verdict.ok:
        assert all(problem.message for problem in verdict.all_problems())
        pytest.skip(f"refused: {verdict.all_problems()[0].message}")
    events: list[Any] = []
    try:
        job = Job(spec=spec, model=model, data=data, folder=tmp_path / "job")
        result = pipeline.run(job, events.append, _no_lock)
    except CompressionError as error:
        pytest.fail(f"preflight let it through, the run refused it: {error.message}")
    made = next(tmp_path / "job" / output.path for output in result.outputs if output.name == "model.onnx")
    onnxruntime.InferenceSession(os.fspath(made), providers=["CPUExecutionProvider"])
    notes = [event.message for event in events if event.type == "note"]
    _check_fidelity(name, result, notes)


def _check_fidelity(name: str, result: Any, notes: list[str]) -> None:
    worst = min(
        (output.sqnr_db for output in result.measurements.fidelity.values() if output.sqnr_db is not None),
        default=float("inf"),
    )
    print(f"{name}: {result.measurements.size_ratio:.2f}x, {worst:.1f} dB: {result.measurements.verdict}")
    if name in {"quantize_weights", "optimize_graph", "cast_float"}:
        assert worst >= FAITHFUL_DB or "dB" in " ".join(notes), notes


def _data(path: Path, workdir: Path) -> tuple[dict[Role, DatasetSummary], dict[Role, Path]]:
    from compression.data import inspect_dataset

    return {Role.CALIBRATION: inspect_dataset(path, workdir)}, {Role.CALIBRATION: path}


def _stacked(arrays: list[np.ndarray]) -> np.ndarray:
    """Samples along the first axis, whether the model has a batch axis there or not."""
    if arrays[0].ndim and arrays[0].shape[0] == 1:
        return np.concatenate(arrays)
    return np.stack(arrays)


@contextlib.contextmanager
def _no_lock() -> Iterator[None]:
    yield
