"""What every compression method owes: read from METHODS, so that a new file is held to it by being there."""

import ast
import hashlib
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from pydantic import TypeAdapter

from compression.data import open_dataset
from compression.errors import CompressionError, NotApplicable
from compression.graph import interface, load, save, summarise
from compression.method import Method, Role, StepContext, StepOutcome
from compression.registry import METHODS
from compression.spec import CompressionSpec
from tests.compression.models import images, save_dataset, small_model, weights_of

EVERY = pytest.mark.parametrize("kind", METHODS.values(), ids=METHODS.keys())
HEAVY = {"torch", "onnxruntime", "onnx_ir", "onnxscript", "sklearn", "scipy"}


def step(kind: type[Method], **changes: Any) -> Method:
    return TypeAdapter(kind).validate_python({**kind.example, **changes})


def context(folder: Path, *, seed: int = 0, heard: list[float] | None = None) -> StepContext:
    work = folder / "work"
    work.mkdir(parents=True)
    data = open_dataset(save_dataset(folder / "data"), folder)
    return StepContext(
        workdir=work,
        data=dict.fromkeys(Role, data),
        device="cpu",
        threads=1,
        seed=seed,
        report=lambda fraction, _: heard.append(fraction) if heard is not None else None,
    )


def apply(method: Method, folder: Path, **options: Any) -> tuple[Path, StepOutcome, list[float]]:
    """The method on the small model, saved."""
    folder.mkdir()
    heard: list[float] = []
    model = load(small_model(folder / "original.onnx"), workdir=folder / "load")
    outcome = method.apply(model, context(folder, heard=heard, **options))
    files = save(outcome.model, folder / "result.onnx")
    return files[0], outcome, heard


@cache
def applied(name: str) -> tuple[Path, StepOutcome, list[float]]:
    import tempfile

    return apply(step(METHODS[name]), Path(tempfile.mkdtemp()) / "run")


def session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def fields(kind: type[Method]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The schema of every parameter; of an optional one the part that is not null."""
    for name, schema in kind.model_json_schema()["properties"].items():
        variants = [variant for variant in schema.get("anyOf", ()) if variant.get("type") != "null"]
        yield name, {**(variants[0] if len(variants) == 1 else {}), **schema}


@EVERY
def test_says_what_it_is(kind: type[Method]) -> None:
    document = inspect.getdoc(kind) or ""
    assert len(document.splitlines()[0]) > 20
    assert document != inspect.getdoc(Method)
    assert 10 < len(kind.title) < 100
    assert len(kind.source) > 20
    assert kind.changes or "passes through" in document
    module = sys.modules[kind.__module__]
    assert (module.__doc__ or "").startswith(kind.model_fields["method"].get_default() + ":")
    assert kind.__module__ == f"compression.methods.{kind.model_fields['method'].get_default()}"


@EVERY
def test_every_field_has_a_description_and_bounds(kind: type[Method]) -> None:
    for name, schema in fields(kind):
        if name == "method":
            continue
        assert len(schema.get("description", "")) > 10, name
        if schema.get("type") in ("integer", "number"):
            assert {"minimum", "exclusiveMinimum"} & schema.keys(), name
            assert {"maximum", "exclusiveMaximum"} & schema.keys(), name
        if schema.get("type") == "string":
            assert {"enum", "const", "pattern", "maxLength"} & schema.keys(), name
        if schema.get("type") == "array":
            assert "maxItems" in schema, name


@EVERY
def test_example_is_a_step_and_survives_json(kind: type[Method]) -> None:
    spec = CompressionSpec.model_validate({"steps": [kind.example]})
    assert type(spec.steps[0]) is kind
    again = CompressionSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert json.loads(json.dumps(spec.step_document(0))) == spec.step_document(0)


@EVERY
def test_unknown_fields_are_refused(kind: type[Method]) -> None:
    with pytest.raises(ValueError, match="no_such_field"):
        step(kind, no_such_field=1)


@EVERY
def test_module_top_imports_nothing_heavy(kind: type[Method]) -> None:
    tree = ast.parse(inspect.getsource(sys.modules[kind.__module__]))
    tops = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in tops if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in tops if isinstance(node, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in names} & HEAVY


def test_forecasts_open_nothing_and_import_nothing_heavy(tmp_path: Path) -> None:
    """All methods forecast from JSON in a fresh process that has no model at hand."""
    path = small_model(tmp_path / "m.onnx")
    summary = summarise(load(path, workdir=tmp_path / "w"), size_bytes=path.stat().st_size)
    code = (
        "import sys\n"
        "from compression.registry import METHODS\n"
        "from compression.summary import ModelSummary\n"
        "model = ModelSummary.model_validate_json(sys.stdin.read())\n"
        "for kind in METHODS.values():\n"
        "    kind.model_validate(dict(kind.example)).forecast(model, {})\n"
        f"print(sorted({HEAVY} & set(sys.modules)))\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        input=summary.model_dump_json(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.strip() == "[]"


@EVERY
def test_forecast_names_layers_and_estimates(kind: type[Method], tmp_path: Path) -> None:
    path = small_model(tmp_path / "m.onnx")
    summary = summarise(load(path, workdir=tmp_path / "w"), size_bytes=path.stat().st_size)
    data = open_dataset(save_dataset(tmp_path / "d"), tmp_path / "dw").summary
    forecast = step(kind).forecast(summary, dict.fromkeys(Role, data))
    assert forecast.problems == ()
    assert set(forecast.layers) <= {layer.name for layer in summary.layers}
    assert forecast.layers
    assert forecast.peak_memory_bytes > summary.size_bytes
    assert 0 < forecast.seconds < 600
    assert forecast.model_after.size_bytes > 0


@EVERY
def test_forecast_of_size_is_near_the_truth(kind: type[Method], tmp_path: Path) -> None:
    """Within a quarter of the weights' bytes plus two kilobytes for the nodes that come with them."""
    path = small_model(tmp_path / "m.onnx")
    summary = summarise(load(path, workdir=tmp_path / "w"), size_bytes=path.stat().st_size)
    data = open_dataset(save_dataset(tmp_path / "d"), tmp_path / "dw").summary
    expected = step(kind).forecast(summary, dict.fromkeys(Role, data)).model_after.size_bytes
    made = applied(kind.model_fields["method"].get_default())[0].stat().st_size
    assert abs(made - expected) <= summary.weight_bytes / 4 + 2048


@EVERY
def test_result_runs_and_keeps_the_interface(kind: type[Method]) -> None:
    path, _, _ = applied(kind.model_fields["method"].get_default())
    original = path.parent / "original.onnx"
    assert interface(load(path)) == interface(load(original))
    for batch in (1, 5):
        feeds = {"image": images(batch)}
        (before,), (after,) = (session(file).run(None, feeds) for file in (original, path))
        assert after.shape == before.shape == (batch, 10)
        assert after.dtype == before.dtype
        assert np.isfinite(after).all()


@EVERY
def test_outcomes_name_real_layers(kind: type[Method]) -> None:
    path, outcome, _ = applied(kind.model_fields["method"].get_default())
    original = summarise(load(path.parent / "original.onnx"), size_bytes=1)
    names = [entry.layer for entry in outcome.layers]
    assert set(names) <= {layer.name for layer in original.layers}
    assert len(names) == len(set(names))
    assert outcome.layers
    assert any(entry.changed for entry in outcome.layers) == bool(kind.changes)
    assert all(entry.note for entry in outcome.layers)
    assert json.dumps(dict(outcome.details), allow_nan=False)


@EVERY
def test_progress_stays_within_bounds(kind: type[Method]) -> None:
    _, _, heard = applied(kind.model_fields["method"].get_default())
    assert heard
    assert all(0 <= fraction <= 1 for fraction in heard)


@EVERY
def test_same_seed_same_bytes(kind: type[Method], tmp_path: Path) -> None:
    """What is measured on the machine may decide about a layer, so methods that time say so in `details`."""
    first = applied(kind.model_fields["method"].get_default())
    second = apply(step(kind), tmp_path / "again")
    if "measured_ms" in json.dumps(dict(first[1].details)):
        pytest.skip("decides by time measured on the machine")
    assert digest(first[0]) == digest(second[0])


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@EVERY
def test_excluded_layers_do_not_change_a_bit(kind: type[Method], tmp_path: Path) -> None:
    try:
        path, outcome, _ = apply(step(kind, layers={"exclude": ["conv2"]}), tmp_path / "run")
    except NotApplicable as error:
        assert "'conv2' would" in error.message and "not selected" in error.message
        return
    before, after = weights_of(tmp_path / "run" / "original.onnx"), weights_of(path)
    assert not any(entry.layer == "conv2" and entry.changed for entry in outcome.layers)
    for name in ("conv2.w", "conv2.b"):
        assert after[name].dtype == before[name].dtype
        assert after[name].tobytes() == before[name].tobytes()


@EVERY
@pytest.mark.parametrize("selector", [{"include": ["no-such-layer"]}, {"exclude": ["op:Nothing"]}])
def test_a_selector_that_matches_nothing_is_refused(
    kind: type[Method], selector: dict[str, list[str]], tmp_path: Path
) -> None:
    method = step(kind, layers=selector)
    path = small_model(tmp_path / "m.onnx")
    summary = summarise(load(path, workdir=tmp_path / "w"), size_bytes=path.stat().st_size)
    data = open_dataset(save_dataset(tmp_path / "d"), tmp_path / "dw").summary
    (problem,) = method.forecast(summary, dict.fromkeys(Role, data)).problems
    assert problem.code == "selector_matched_nothing"
    assert "conv1" in (problem.hint or "") or "op:Conv" in (problem.hint or "")
    with pytest.raises(CompressionError, match="matches none"):
        apply(method, tmp_path / "run")
