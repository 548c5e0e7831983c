"""Looks into an uploaded file, in the sandbox; writes what was found, or why it is refused, on its row."""

import time
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from compression.errors import NeedsConversion
from compression.summary import Conversion, DatasetSummary, ModelSummary
from db import assets
from db.errors import QuotaExceeded, StorageError
from db.models import Asset, AssetKind
from db.settings import GIB
from worker import failures
from worker.child import CONVERT_MODEL, INSPECT_DATASET, INSPECT_MODEL
from worker.confinement import Limits
from worker.failures import Interrupted, Refused, SandboxError
from worker.inputs import fetch
from worker.outputs import store_file
from worker.sandbox import usable_cores
from worker.services import Services

log = structlog.get_logger(__name__)

_LEASE_MARGIN_S = 30.0
_RESTARTS = 2
_CONVERTED = "converted"


def inspect_asset(services: Services, asset_id: str) -> None:
    """Does nothing if the asset needs no inspection or another worker has it."""
    settings = services.settings
    lease_s = settings.inspection_time_limit_s + _LEASE_MARGIN_S
    with services.database.transaction() as s:
        asset = assets.claim_inspection(s, asset_id, lease_s, max_attempts=settings.max_attempts)
    if asset is None:
        log.info("inspection_not_claimed", asset=asset_id)
        return
    try:
        _settle(services, asset)
    except (SQLAlchemyError, StorageError) as error:
        log.warning("inspection_left_to_its_lease", asset=asset_id, error=str(error))


def _settle(services: Services, asset: Asset) -> None:
    try:
        summary = _inspect(services, asset)
    except SandboxError as error:
        log.info("asset_refused", asset=asset.id, code=error.code)
        with services.database.transaction() as s:
            assets.refuse_asset(s, services.store, asset.id, asset.attempt, error.document())
        return
    with services.database.transaction() as s:
        assets.finish_inspection(s, asset.id, asset.attempt, summary)
    log.info("asset_inspected", asset=asset.id)


def _inspect(services: Services, asset: Asset) -> dict[str, Any]:
    deadline = time.monotonic() + services.settings.inspection_time_limit_s
    for restart in range(_RESTARTS + 1):
        try:
            if asset.kind is AssetKind.MODEL:
                return _inspect_model(services, asset, deadline)
            return _look(services, asset, INSPECT_DATASET, deadline)
        except Interrupted:
            if restart == _RESTARTS:
                raise
    raise AssertionError("unreachable")


def _inspect_model(services: Services, asset: Asset, deadline: float) -> dict[str, Any]:
    """What is no ONNX yet is made so in one child and looked at in another.

    Only the first may have run code from the file, and nothing that it says is taken but the model it wrote.
    """
    try:
        found = _look(services, asset, INSPECT_MODEL, deadline)
    except Refused as refusal:
        if refusal.code != NeedsConversion.code or asset.converted_sha256 is not None:
            raise
        asset = _convert(services, asset, deadline)
        found = _look(services, asset, INSPECT_MODEL, deadline)
    return found | _told_of_conversion(asset)


def _look(services: Services, asset: Asset, entry: str, deadline: float) -> dict[str, Any]:
    with services.sandbox.folder(asset.id) as folder:
        request = {"path": fetch(services, asset, folder, asset.kind), "workdir": "unpacked"}
        (folder / "unpacked").mkdir()
        found = services.sandbox.run(entry, folder, request, limits=_limits(services, asset, deadline))
    return _checked(asset, found)


def _convert(services: Services, asset: Asset, deadline: float) -> Asset:
    """The asset with the ONNX model that jobs will read."""
    limits = _limits(services, asset, deadline)
    with services.sandbox.folder(asset.id) as folder:
        request = {"path": fetch(services, asset, folder, asset.kind), "target": _CONVERTED}
        services.sandbox.run(CONVERT_MODEL, folder, request, limits=limits)
        stored = store_file(services.store, asset.project_id, folder, _CONVERTED, max_bytes=limits.disk_bytes)
    try:
        with services.database.transaction() as s:
            return assets.keep_conversion(
                s,
                services.store,
                asset.id,
                asset.attempt,
                sha256=stored.sha256,
                size_bytes=stored.size_bytes,
            )
    except QuotaExceeded as error:
        raise failures.no_space(error.message) from error


def _told_of_conversion(asset: Asset) -> dict[str, Any]:
    if asset.converted_sha256 is None:
        return {"format": "onnx", "conversion": None}
    conversion = Conversion(
        tool=f"torch.onnx.export of torch {metadata.version('torch')}",
        sha256=asset.used_sha256,
        size_bytes=asset.used_size_bytes,
    )
    return {"format": "pt2", "conversion": conversion.model_dump(mode="json")}


def _checked(asset: Asset, found: Mapping[str, Any]) -> dict[str, Any]:
    """The child read a stranger's file; what it says is taken only if it is a summary."""
    kind = ModelSummary if asset.kind is AssetKind.MODEL else DatasetSummary
    try:
        return kind.model_validate(found).model_dump(mode="json")
    except ValidationError as error:
        raise failures.broken_protocol("a summary that is none") from error


def _limits(services: Services, asset: Asset, deadline: float) -> Limits:
    settings = services.settings
    wall_s = max(deadline - time.monotonic(), 0.1)
    return Limits(
        memory_bytes=settings.inspection_memory_bytes,
        wall_s=wall_s,
        cpu_s=wall_s * usable_cores(),
        disk_bytes=4 * GIB + 8 * asset.used_size_bytes,
    )
