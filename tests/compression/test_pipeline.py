"""Whole runs: what comes out, what is checked on the way, and what is left when a step fails."""

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from compression.errors import CompressionError, DataMismatch, NotApplicable, ResultRejected
from compression.graph import inspect_model
from compression.job import (
    Event,
    FinishedStep,
    Job,
    Note,
    Progress,
    Result,
    StepFinished,
    StepRecord,
    StepStarted,
)
from compression.method import Role, StepContext, StepOutcome
from compression.methods.optimize_graph import OptimizeGraph
from compression.methods.prune_magnitude import PruneMagnitude
from compression.pipeline import run
from compression.preflight import preflight
from compression.spec import CompressionSpec
from tests.compression.models import images, save_dataset, small_model, weights_of
from tests.compression.quantization.graphs import half_quantized

FAST = {"latency": {"runs": 5}}
PRUNE = {"method": "prune_magnitude", "sparsity": 0.5}
CLIP = {"method": "clip_weights", "mode": "limit", "limit": 0.5}
OPTIMIZE = {"method": "optimize_graph"}


def job(folder: Path, steps: Sequence[Mapping[str, Any]], **options: Any) -> Job:
    folder.mkdir(parents=True, exist_ok=True)
    model = options.pop("model", None) or small_model(folder / "upload")
    spec = CompressionSpec.model_validate(
        {"steps": steps, "evaluation": FAST, "seed": options.pop("seed", 0)}
    )
    return Job(spec=spec, model=model, folder=folder / "job", threads=1, **options)


def execute(work: Job) -> tuple[Result, list[Event]]:
    heard: list[Event] = []
    return run(work, heard.append, nullcontext), heard


def test_from_upload_to_outputs(tmp_path: Path) -> None:
    data = save_dataset(tmp_path / "data")
    work = job(
        tmp_path,
        [PRUNE, OPTIMIZE],
        data={Role.EVALUATION: data},
        request={"model_id": "mdl_1", "name": "tiny"},
    )
    result, heard = execute(work)
    names = [output.name for output in result.outputs]
    assert names == ["model.onnx", "report.json", "recipe.json", "report.html", "manifest.json"]
    out = {output.name: work.folder / output.path for output in result.outputs}
    session = ort.InferenceSession(out["model.onnx"], providers=["CPUExecutionProvider"])
    assert session.run(None, {"image": images(4)})[0].shape == (4, 10)
    assert result.measurements.compressed.size_bytes == out["model.onnx"].stat().st_size
    assert result.measurements.original.size_bytes == work.model.stat().st_size
    assert result.measurements.data == "evaluation"
    assert "accuracy" in result.measurements.compressed.metrics
    check_manifest(out)
    check_recipe(json.loads(out["recipe.json"].read_text()), work)
    report = json.loads(out["report.json"].read_text())
    assert [step["method"] for step in report["steps"]] == ["prune_magnitude", "optimize_graph"]
    assert report["steps"][0]["parameters"]["sparsity"] == 0.5
    assert report["measurements"]["verdict"] == result.measurements.verdict
    assert "<html" in out["report.html"].read_text().lower()
    check_events(heard)


def check_manifest(out: Mapping[str, Path]) -> None:
    entries = json.loads(out["manifest.json"].read_text())["files"]
    assert {entry["name"] for entry in entries} == out.keys() - {"manifest.json"}
    for entry in entries:
        content = out[entry["name"]].read_bytes()
        assert (entry["size_bytes"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def check_recipe(recipe: Mapping[str, Any], work: Job) -> None:
    assert (recipe["model_id"], recipe["name"]) == ("mdl_1", "tiny")
    again = CompressionSpec.model_validate({name: recipe[name] for name in CompressionSpec.model_fields})
    assert again.model_dump() == work.spec.model_dump()
    made_with = recipe["made_with"]
    assert made_with["model_sha256"] == hashlib.sha256(work.model.read_bytes()).hexdigest()
    assert made_with["data_sha256"].keys() == {"evaluation"}
    assert made_with["versions"].keys() >= {"python", "numpy", "onnxruntime"}


def check_events(heard: Sequence[Event]) -> None:
    steps = [(type(event), event.index) for event in heard if isinstance(event, StepStarted | StepFinished)]
    assert steps == [(StepStarted, 0), (StepFinished, 0), (StepStarted, 1), (StepFinished, 1)]
    progress = [event for event in heard if isinstance(event, Progress)]
    overall = [event.overall for event in progress]
    assert overall == sorted(overall)
    assert overall[-1] == 1.0
    assert progress[-1].index == 2
    assert any(isinstance(event, Note) and "zeros only" in event.message for event in heard)


def test_steps_work_on_the_last_ones_result(tmp_path: Path) -> None:
    work = job(tmp_path, [CLIP, {**PRUNE, "scope": "layer"}])
    execute(work)
    before, middle, after = (
        weights_of(path)["conv2.w"]
        for path in (work.model, *(work.folder / "steps" / str(index) / "model.onnx" for index in (0, 1)))
    )
    np.testing.assert_array_equal(middle, np.clip(before, -0.5, 0.5))
    assert np.count_nonzero(after == 0) == 288
    np.testing.assert_array_equal(after[after != 0], middle[after != 0])


def test_same_job_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for name in ("a", "b"):
        result, _ = execute(job(tmp_path / name, [PRUNE, OPTIMIZE]))
        model = tmp_path / name / "job" / result.outputs[0].path
        digests.add(hashlib.sha256(model.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_resumes_after_finished_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = job(tmp_path / "a", [CLIP, PRUNE])
    result, heard = execute(whole)
    expected = (whole.folder / result.outputs[0].path).read_bytes()
    first = next(event for event in heard if isinstance(event, StepFinished))
    rest = job(
        tmp_path / "b", [CLIP, PRUNE], finished=(FinishedStep(outcome=first.outcome, seconds=first.seconds),)
    )
    for file in first.files:
        target = rest.folder / file
        target.parent.mkdir(parents=True)
        target.write_bytes((whole.folder / file).read_bytes())
    monkeypatch.setattr("compression.methods.clip_weights.ClipWeights.apply", refuse)
    again, heard = execute(rest)
    assert (rest.folder / again.outputs[0].path).read_bytes() == expected
    assert [event.index for event in heard if isinstance(event, StepStarted)] == [1]
    report = json.loads((rest.folder / "outputs" / "report.json").read_text())
    assert report["steps"][0]["layers"] == first.outcome.model_dump(mode="json")["layers"]


def refuse(*_: object) -> StepOutcome:
    raise NotApplicable("not today", where="conv1")


def test_a_failing_step_leaves_what_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PruneMagnitude, "apply", refuse)
    work = job(tmp_path, [CLIP, PRUNE])
    heard: list[Event] = []
    with pytest.raises(NotApplicable, match="not today") as caught:
        run(work, heard.append, nullcontext)
    assert caught.value.where == "steps.1 (prune_magnitude): conv1"
    (finished,) = [event for event in heard if isinstance(event, StepFinished)]
    assert (work.folder / finished.files[0]).stat().st_size == finished.outcome.size_bytes
    assert not (work.folder / "run").exists()


def rename_output(self: OptimizeGraph, model: Any, context: StepContext) -> StepOutcome:
    model.graph.outputs[0].name = "other"
    return StepOutcome(model=model, layers=())


def break_graph(self: OptimizeGraph, model: Any, context: StepContext) -> StepOutcome:
    next(node for node in model.graph if node.op_type == "Conv").op_type = "Gemm"
    return StepOutcome(model=model, layers=())


@pytest.mark.parametrize("broken", [rename_output, break_graph])
def test_results_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: Any) -> None:
    monkeypatch.setattr(OptimizeGraph, "apply", broken)
    with pytest.raises(ResultRejected) as caught:
        execute(job(tmp_path, [OPTIMIZE]))
    assert (caught.value.where or "").startswith("steps.0 (optimize_graph)")


def test_preflight_holds_without_the_service(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="matches none") as caught:
        execute(job(tmp_path / "a", [{**PRUNE, "layers": {"include": ["nope"]}}]))
    assert "conv1" in (caught.value.hint or "")
    with (tmp_path / "odd").open("wb") as file:
        np.savez(file, image=np.zeros((4, 1, 8, 8), np.float32))
    with pytest.raises(DataMismatch):
        execute(job(tmp_path / "b", [PRUNE], data={Role.EVALUATION: tmp_path / "odd"}))


def test_without_data_inputs_are_made_up(tmp_path: Path) -> None:
    result, _ = execute(job(tmp_path, [PRUNE]))
    assert result.measurements.data == "synthetic"
    assert result.measurements.compressed.metrics == {}


def test_timing_is_held_while_measuring_only(tmp_path: Path) -> None:
    seen: list[str] = []

    @contextmanager
    def timing() -> Iterator[None]:
        seen.append("held")
        yield
        seen.append("freed")

    heard: list[Event] = []

    def listen(event: Event) -> None:
        heard.append(event)
        if isinstance(event, StepFinished):
            assert not seen

    run(job(tmp_path, [PRUNE]), listen, timing)
    assert seen[:2] == ["held", "freed"]


def test_a_zip_with_external_data(tmp_path: Path) -> None:
    import onnx

    plain = small_model(tmp_path / "plain.onnx")
    onnx.save(
        onnx.load(plain), tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0
    )
    upload = tmp_path / "upload"
    with zipfile.ZipFile(upload, "w") as archive:
        for name in ("m.onnx", "m.bin"):
            archive.write(tmp_path / name, name)
    result, _ = execute(job(tmp_path, [PRUNE], model=upload))
    assert [output.name for output in result.outputs][:2] == ["model.onnx", "report.json"]
    assert result.measurements.original.size_bytes >= sum(
        (tmp_path / name).stat().st_size for name in ("m.onnx", "m.bin")
    )


def test_records_survive_json() -> None:
    record = StepRecord(layers=(), notes=("n",), details={"a": 1}, size_bytes=3)
    event = StepFinished(index=0, seconds=1.0, outcome=record, files=("steps/0/model.onnx",))
    from compression.job import EVENT

    assert EVENT.validate_json(event.model_dump_json()) == event


def leave_files(monkeypatch: pytest.MonkeyPatch, step: Any) -> None:
    """Makes a method leave a file that holds the method's name."""
    plain = step.apply

    def apply(self: Any, model: Any, context: StepContext) -> StepOutcome:
        outcome = plain(self, model, context)
        path = context.workdir / "made"
        path.write_text(self.method)
        return replace(outcome, files={"extra.onnx": path})

    monkeypatch.setattr(step, "apply", apply)


def test_further_results_become_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_files(monkeypatch, PruneMagnitude)
    work = job(tmp_path, [PRUNE, OPTIMIZE])
    result, heard = execute(work)
    out = {output.name: work.folder / output.path for output in result.outputs}
    assert out["extra.onnx"].read_text() == "prune_magnitude"
    check_manifest(out)
    finished = [event for event in heard if isinstance(event, StepFinished)]
    assert finished[0].files == ("steps/0/model.onnx", "steps/0/extra.onnx")
    assert [event.outcome.files for event in finished] == [("extra.onnx",), ()]


def test_further_results_of_one_name_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_files(monkeypatch, PruneMagnitude)
    leave_files(monkeypatch, OptimizeGraph)
    work = job(tmp_path, [PRUNE, OPTIMIZE])
    result, _ = execute(work)
    texts = {output.name: (work.folder / output.path) for output in result.outputs if "extra" in output.name}
    assert {name: path.read_text() for name, path in texts.items()} == {
        "step_1_extra.onnx": "prune_magnitude",
        "step_2_extra.onnx": "optimize_graph",
    }


def test_a_model_that_is_quantized_already_comes_back_as_it_was(tmp_path: Path) -> None:
    onnx.save(half_quantized(), path := tmp_path / "quantized.onnx")
    work = job(tmp_path, [{"method": "quantize_weights"}], model=path)
    foreseen = preflight(work.spec, inspect_model(path, tmp_path / "inspection"), {})
    result, heard = execute(work)
    assert foreseen.ok and foreseen.steps[0].warnings[0].code == "nothing_to_gain"
    assert [note.message for note in heard if isinstance(note, Note)] == [
        foreseen.steps[0].warnings[0].message
    ]
    made = next(work.folder / item.path for item in result.outputs if item.name == "model.onnx")
    assert made.read_bytes() == path.read_bytes()
    assert all(output.exact for output in result.measurements.fidelity.values())


def test_layers_of_a_quantized_model_that_are_named_are_quantized_too(tmp_path: Path) -> None:
    onnx.save(half_quantized(), path := tmp_path / "quantized.onnx")
    steps = [{"method": "quantize_weights", "layers": {"include": ["floats"]}}]
    result, _ = execute(job(tmp_path, steps, model=path))
    assert result.measurements.size_ratio > 1.1
