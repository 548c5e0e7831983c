"""Looks into an uploaded file, in the sandbox; writes what was found, or why it is refused, on its row."""

from collections.abc import Mapping
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from compression.summary import DatasetSummary, ModelSummary
from db import assets
from db.errors import StorageError
from db.models import Asset, AssetKind
from db.settings import GIB
from worker import failures
from worker.child import INSPECT_DATASET, INSPECT_MODEL
from worker.confinement import Limits
from worker.failures import Interrupted, SandboxError
from worker.inputs import fetch
from worker.sandbox import usable_cores
from worker.services import Services

log = structlog.get_logger(__name__)

_LEASE_MARGIN_S = 30.0
_RESTARTS = 2


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
    entry = INSPECT_MODEL if asset.kind is AssetKind.MODEL else INSPECT_DATASET
    for restart in range(_RESTARTS + 1):
        try:
            with services.sandbox.folder(asset.id) as folder:
                request = {"path": fetch(services, asset, folder, asset.kind), "workdir": "unpacked"}
                (folder / "unpacked").mkdir()
                found = services.sandbox.run(entry, folder, request, limits=_limits(services, asset))
            return _checked(asset, found)
        except Interrupted:
            if restart == _RESTARTS:
                raise
    raise AssertionError("unreachable")


def _checked(asset: Asset, found: Mapping[str, Any]) -> dict[str, Any]:
    """The child read a stranger's file; what it says is taken only if it is a summary."""
    kind = ModelSummary if asset.kind is AssetKind.MODEL else DatasetSummary
    try:
        return kind.model_validate(found).model_dump(mode="json")
    except ValidationError as error:
        raise failures.broken_protocol("a summary that is none") from error


def _limits(services: Services, asset: Asset) -> Limits:
    settings = services.settings
    wall_s = settings.inspection_time_limit_s
    return Limits(
        memory_bytes=settings.inspection_memory_bytes,
        wall_s=wall_s,
        cpu_s=wall_s * usable_cores(),
        disk_bytes=4 * GIB + 8 * asset.size_bytes,
    )
