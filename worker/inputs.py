"""Puts into a job folder what its run starts from.

The models, the datasets, the last step that is done already, and how far the one after it is.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from compression.cache_key import first_key, step_key
from compression.job import CHECKPOINTS_FOLDER, STEPS_FOLDER, StepRecord
from compression.method import Device, Role
from compression.spec import CompressionSpec
from db import jobs
from db.assets import find_assets
from db.blobs import object_key
from db.errors import ObjectMissing
from db.models import Asset, Job, StepState
from db.step_results import find_step_result
from worker.failures import Failed
from worker.services import Services

INPUTS_FOLDER = "inputs"
_SUFFIX = re.compile(r"(\.[a-z0-9]{1,12}){0,2}")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Of one job, as rows know them."""

    spec: CompressionSpec
    model: Asset
    data: Mapping[Role, Asset]
    models: Mapping[str, Asset]
    """The other models that steps name, by id."""
    device: Device
    keys: tuple[str, ...]
    """Of the result after each step."""

    @property
    def size_bytes(self) -> int:
        return sum(
            asset.used_size_bytes for asset in (self.model, *self.data.values(), *self.models.values())
        )


def read_inputs(services: Services, job: Job) -> Inputs:
    """Raises `Failed` if a row is gone, which the database should not have let happen."""
    spec = CompressionSpec.model_validate(job.spec)
    wanted = {job.model_id, *job.data.values(), *spec.other_models()}
    with services.database.read() as s:
        found = find_assets(s, wanted)
    if len(found) < len(wanted):
        raise missing("a model or dataset of the job")
    data = {Role(role): found[id] for role, id in job.data.items()}
    models = {id: found[id] for id in spec.other_models()}
    device: Device = "cuda" if job.queue == "cuda" else "cpu"
    return Inputs(
        spec=spec,
        model=found[job.model_id],
        data=data,
        models=models,
        device=device,
        keys=_keys(spec, found[job.model_id], data, models, device),
    )


def fetch(services: Services, asset: Asset, folder: Path, name: str) -> str:
    """Copies an asset into the folder, converted where it was; returns its path there.

    Raises `Failed` if its bytes are gone.
    """
    suffix = _suffix(asset.filename) if asset.converted_sha256 is None else ""
    path = f"{INPUTS_FOLDER}/{name}{suffix}"
    target = folder / path
    target.parent.mkdir(exist_ok=True)
    try:
        services.store.get(object_key(asset.project_id, asset.used_sha256), target)
    except ObjectMissing as error:
        raise missing(f"the bytes of {asset.id}") from error
    return path


def restore_steps(services: Services, job: Job, inputs: Inputs, folder: Path) -> list[dict[str, Any]]:
    """The longest run of first steps whose results are known, their files in place.

    Of all but the last these are only the results beside the model. The steps are
    marked as done on the job's row.
    """
    known = _known_steps(services, job, inputs.keys)
    while known:
        try:
            _fetch_steps(services, job, known, folder / STEPS_FOLDER)
            break
        except ObjectMissing:  # Pruned a moment ago.
            known.pop()
    _mark_done(services, job, known)
    return [{"outcome": step.record, "seconds": step.seconds} for step in known]


def restore_checkpoint(
    services: Services, job: Job, inputs: Inputs, folder: Path, finished: int
) -> str | None:
    """What an earlier attempt saved in the step after the `finished` ones: its path in the folder."""
    if finished == len(inputs.keys):
        return None
    with services.database.read() as s:
        found = jobs.find_checkpoint(s, job.id, inputs.keys[finished])
    if found is None:
        return None
    path = f"{CHECKPOINTS_FOLDER}/{finished}/restored"
    (folder / path).parent.mkdir(parents=True)
    try:
        services.store.get(object_key(job.project_id, found.sha256), folder / path)
    except ObjectMissing:
        return None
    return path


def _keys(
    spec: CompressionSpec,
    model: Asset,
    data: Mapping[Role, Asset],
    models: Mapping[str, Asset],
    device: Device,
) -> tuple[str, ...]:
    data_sha256 = {role: asset.used_sha256 for role, asset in data.items()}
    models_sha256 = {id: asset.used_sha256 for id, asset in models.items()}
    keys = [first_key(model.used_sha256)]
    for index in range(len(spec.steps)):
        keys.append(step_key(keys[-1], spec, index, data_sha256, device, models_sha256=models_sha256))
    return tuple(keys[1:])


def missing(what: str) -> Failed:
    return Failed("input_missing", f"The job cannot run: {what} is gone.", hint="Upload it again.")


@dataclass(frozen=True, kw_only=True)
class _KnownStep:
    record: dict[str, Any]
    seconds: float
    files: Sequence[tuple[str, str]]
    """Name and hash of each."""


def _known_steps(services: Services, job: Job, keys: Sequence[str]) -> list[_KnownStep]:
    known: list[_KnownStep] = []
    with services.database.transaction() as s:
        for key in keys:
            result = find_step_result(s, job.project_id, key)
            if result is None:
                break
            known.append(
                _KnownStep(
                    record=StepRecord.model_validate(result.outcome["record"]).model_dump(mode="json"),
                    seconds=result.outcome["seconds"],
                    files=[(file.name, file.sha256) for file in result.files],
                )
            )
    return known


def _fetch_steps(services: Services, job: Job, known: Sequence[_KnownStep], folder: Path) -> None:
    for index, step in enumerate(known):
        further = step.record.get("files", ())
        last = index == len(known) - 1
        wanted = [file for file in step.files if last or file[0] in further]
        _fetch_files(services, job, wanted, folder / str(index))


def _fetch_files(services: Services, job: Job, files: Sequence[tuple[str, str]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, sha256 in files:
        services.store.get(object_key(job.project_id, sha256), folder / PurePath(name).name)


def _mark_done(services: Services, job: Job, known: Sequence[_KnownStep]) -> None:
    done = {step.index for step in job.steps if step.state is StepState.DONE}
    with services.database.transaction() as s:
        for index, step in enumerate(known):
            if index not in done:
                jobs.finish_step(
                    s, job.id, job.token or "", index, seconds=step.seconds, outcome=step.record, cached=True
                )


def _suffix(filename: str) -> str:
    """The end of the uploaded name, where it is harmless; readers go by what a file holds."""
    suffix = "".join(PurePath(filename).suffixes[-2:]).lower()
    return suffix if _SUFFIX.fullmatch(suffix) else ""
