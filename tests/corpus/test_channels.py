"""Channel groups of every real model: what is cut is proven, and what is not has a reason."""

import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from compression import pipeline
from compression.errors import CompressionError, NotApplicable
from compression.graph import interface, load, save
from compression.graph.channels import TOLERANCE, cut, find_groups, prove
from compression.graph.synthetic import synthesise
from compression.job import Job, StepFinished
from compression.spec import CompressionSpec
from tests.compression.graph.channels.cutting import doomed

pytestmark = [pytest.mark.corpus, pytest.mark.timeout(900)]
MODELS = sorted(Path(os.environ.get("MODELPRESS_CORPUS", ".corpus")).glob("*.onnx"))


@pytest.mark.parametrize("path", MODELS or [None], ids=lambda path: path.stem if path else "none")
def test_a_real_model_is_cut_or_says_why_not(path, tmp_path):
    if path is None:
        pytest.skip("no models: run `make test-corpus`")
    original, model = load(path), load(path)
    grouping = find_groups(model)
    assert grouping.groups or grouping.locked
    assert all(item.reason for item in grouping.locked)
    if not grouping.groups:
        return
    chosen = doomed(grouping, 0.3)
    cut(model, chosen)
    (saved,) = save(model, tmp_path / "cut.onnx")
    assert saved.stat().st_size < path.stat().st_size
    inputs, _ = interface(original)
    try:
        feeds = next(iter(synthesise(inputs, 1, 0, original)))
    except CompressionError as error:
        pytest.skip(error.message)
    assert prove(original, load(saved), chosen, feeds) <= TOLERANCE


@pytest.mark.parametrize("path", MODELS or [None], ids=lambda path: path.stem if path else "none")
def test_a_job_cuts_a_third_of_a_real_model_or_names_what_cannot_be_cut(path, tmp_path):
    if path is None:
        pytest.skip("no models: run `make test-corpus`")
    step = {"method": "prune_channels", "sparsity": 0.3, "criterion": "l2"}
    spec = CompressionSpec.model_validate({"steps": [step], "evaluation": {"latency": {"runs": 5}}})
    events = []
    try:
        work = Job(spec=spec, model=path, data={}, folder=tmp_path / "job", threads=1)
        result = pipeline.run(work, events.append, nullcontext)
    except NotApplicable as refusal:
        assert refusal.message
        pytest.skip(f"refused: {refusal.message}")
    assert result.measurements.size_ratio > 1
    (outcome,) = [event.outcome for event in events if isinstance(event, StepFinished)]
    whole = [layer for layer in outcome.layers if not layer.changed]
    print(
        f"{result.measurements.verdict}; {len(outcome.layers) - len(whole)} of {len(outcome.layers)} layers cut"
    )
    assert all(layer.note for layer in whole)
