"""The files a finished job leaves: the model, its report, the recipe to make it again, and a manifest."""

import hashlib
import json
import math
import os
import platform
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from compression.job import STEPS_FOLDER, Job, OutputFile, StepRecord
from compression.measurements import Measurements
from compression.method import Role

OUTPUTS_FOLDER = "outputs"
MODEL_TYPE = "application/octet-stream"
PACKAGES = ("modelpress", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "onnxslim", "torch")


def write_outputs(
    job: Job,
    model_files: Sequence[Path],
    records: Sequence[tuple[StepRecord, float]],
    measurements: Measurements,
) -> tuple[OutputFile, ...]:
    """Writes everything below `folder/outputs`; the manifest comes last and covers the others."""
    folder = job.folder / OUTPUTS_FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    types = {file.name: MODEL_TYPE for file in model_files}
    for file in model_files:
        _link(file, folder / file.name)
    for name, file in _further_files(job, [record for record, _ in records]):
        _link(file, folder / name)
        types[name] = MODEL_TYPE
    document = report_document(job, records, measurements)
    _write_json(folder / "report.json", document)
    _write_json(folder / "recipe.json", recipe(job))
    types |= {"report.json": "application/json", "recipe.json": "application/json"}
    (folder / "report.html").write_text(_html(document), encoding="utf-8")
    types["report.html"] = "text/html"
    _write_json(folder / "manifest.json", manifest(folder / name for name in types))
    types["manifest.json"] = "application/json"
    return tuple(
        OutputFile(name=name, path=f"{OUTPUTS_FOLDER}/{name}", media_type=kind)
        for name, kind in types.items()
    )


def _further_files(job: Job, records: Sequence[StepRecord]) -> Iterator[tuple[str, Path]]:
    """What steps made beside their models; a name that two steps gave is told apart by the step's number."""
    borne = Counter(name for record in records for name in record.files)
    for index, record in enumerate(records):
        for name in record.files:
            unique = name if borne[name] == 1 else f"step_{index + 1}_{name}"
            yield unique, job.folder / STEPS_FOLDER / str(index) / name


def report_document(
    job: Job, records: Sequence[tuple[StepRecord, float]], measurements: Measurements
) -> dict[str, Any]:
    """What report.json holds: each step with its parameters, what became of each layer, and the figures."""
    steps = [
        {
            "method": step.method,
            "parameters": job.spec.step_document(index),
            "seconds": seconds,
            **record.model_dump(mode="json"),
        }
        for index, (step, (record, seconds)) in enumerate(zip(job.spec.steps, records, strict=True))
    ]
    return {
        "name": job.request.get("name", ""),
        "seed": job.spec.seed,
        "device": job.device,
        "versions": versions(),
        "steps": steps,
        "measurements": measurements.model_dump(mode="json"),
    }


def recipe(job: Job) -> dict[str, Any]:
    """A job request that makes the same result again, with what it was made from under `made_with`."""
    return {
        **job.request,
        **job.spec.model_dump(mode="json"),
        "made_with": {
            "model_sha256": sha256(job.model),
            "data_sha256": {Role(role).value: sha256(path) for role, path in sorted(job.data.items())},
            "models_sha256": {id: sha256(path) for id, path in sorted(job.models.items())},
            "device": job.device,
            "threads": job.threads,
            "versions": versions(),
        },
    }


def manifest(files: Any) -> dict[str, Any]:
    entries = [
        {"name": file.name, "size_bytes": file.stat().st_size, "sha256": sha256(file)}
        for file in sorted(files)
    ]
    return {"files": entries}


def versions() -> dict[str, str]:
    """Python and the packages that decide what comes out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _html(document: Mapping[str, Any]) -> str:
    from compression.report import render_report_html

    return render_report_html(document)


def _link(source: Path, target: Path) -> None:
    """A second name for the same bytes where the file system allows it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(
        json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )


def _finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: they become null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
