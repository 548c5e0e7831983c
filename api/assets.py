"""What models and datasets have in common: arriving, being looked at, being listed, fetched and deleted."""

from pathlib import PurePath

from fastapi import Request, Response

from api.auth import Caller
from api.content import Stored, answer
from api.errors import UploadRefused
from api.services import Services
from api.uploads import receive
from api.waiting import wait_until
from compression.method import Problem as Finding
from db import assets
from db.errors import AssetNotReady
from db.models import Asset, AssetKind, AssetState

INSPECTION_RETRY_S = "2"


async def upload(
    request: Request,
    response: Response,
    services: Services,
    caller: Caller,
    kind: AssetKind,
    name: str | None,
    filename: str | None,
) -> Asset:
    """Takes the file, waits a little for its inspection, and sets the status that tells how far that is.

    201 ready and new, 200 ready and known before, 202 still inspecting. Raises `UploadRefused`.
    """
    asset, created = await receive(request, services, caller, kind, name, filename)
    seconds = services.settings.inspection_wait_s
    asset = await wait_for_inspection(request, services, caller, kind, asset.id, seconds)
    if asset.state is AssetState.REFUSED:
        raise _refused(asset)
    response.headers["Location"] = f"/v1/{kind}s/{asset.id}"
    response.status_code = 201 if created else 200
    if asset.state is AssetState.INSPECTING:
        response.status_code = 202
        response.headers["Retry-After"] = INSPECTION_RETRY_S
    return asset


async def wait_for_inspection(
    request: Request, services: Services, caller: Caller, kind: AssetKind, asset_id: str, seconds: float
) -> Asset:
    def read() -> Asset:
        return get(services, caller, kind, asset_id)

    return await wait_until(request, read, lambda asset: asset.state is not AssetState.INSPECTING, seconds)


def get(services: Services, caller: Caller, kind: AssetKind, asset_id: str) -> Asset:
    with services.database.read() as s:
        return assets.get_asset(s, caller.project_id, kind, asset_id)


def listed(
    services: Services, caller: Caller, kind: AssetKind, limit: int, cursor: str | None
) -> tuple[list[Asset], str | None]:
    with services.database.read() as s:
        return assets.list_assets(s, caller.project_id, kind, limit, cursor)


def delete(services: Services, caller: Caller, kind: AssetKind, asset_id: str) -> None:
    with services.database.transaction() as s:
        assets.delete_asset(s, services.store, caller.project_id, kind, asset_id)


async def content(request: Request, services: Services, asset: Asset) -> Response:
    if asset.state is AssetState.REFUSED:
        raise AssetNotReady(f"The {asset.kind} {asset.id} was refused, so its bytes were not kept")
    stored = Stored(
        project_id=asset.project_id, sha256=asset.sha256, size_bytes=asset.size_bytes, filename=asset.filename
    )
    return await answer(request, services, stored)


async def used_content(request: Request, services: Services, asset: Asset) -> Response:
    """The bytes that jobs read, which are others than the upload where that was converted."""
    if asset.state is not AssetState.READY:
        raise AssetNotReady(
            f"The {asset.kind} {asset.id} is {asset.state}", hint="Wait until its state is ready."
        )
    if asset.converted_sha256 is None:
        return await content(request, services, asset)
    suffix = ".zip" if (asset.summary or {}).get("external_data") else ".onnx"
    stored = Stored(
        project_id=asset.project_id,
        sha256=asset.used_sha256,
        size_bytes=asset.used_size_bytes,
        filename=f"{PurePath(asset.filename).stem or asset.id}{suffix}",
    )
    return await answer(request, services, stored)


def _refused(asset: Asset) -> UploadRefused:
    error = asset.error or {}
    finding = Finding(
        code=error.get("code", UploadRefused.code),
        message=error.get("message", "the file was refused"),
        where=error.get("where"),
        hint=error.get("hint"),
    )
    return UploadRefused(finding.message, code=finding.code, findings=[finding])
