"""Models and datasets: uploaded once per project and hash, inspected by a worker, used by jobs.

| from | to | by | guard |
|---|---|---|---|
| - | inspecting | `add_asset` | no living asset with the same bytes, kind and project; enough quota |
| inspecting | inspecting | `claim_inspection` | no lease, or a dead one: attempt + 1, new lease |
| inspecting | ready | `finish_inspection` | the attempt that claimed last |
| inspecting | refused | `refuse_asset` | the attempt that claimed last; the bytes are given up |
| inspecting | refused | `claim_inspection` | attempts used up: code `poison` |

A deleted asset keeps its row (`deleted_at`), because finished jobs name it.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.orm import Session

from db.blobs import add_blob, release_blobs
from db.clock import utcnow
from db.errors import AssetInUse, NotFound
from db.ids import new_id
from db.models import LIVE_STATES, Asset, AssetKind, AssetState, Job
from db.projects import check_space, counts, lock_project
from db.storage import ObjectStore

_PREFIX = {AssetKind.MODEL: "mdl", AssetKind.DATASET: "dst"}
_POISON = {
    "code": "poison",
    "message": "The file could not be inspected: each inspection ended without a result.",
    "where": None,
    "hint": "Check that it opens in onnxruntime, or send it again.",
    "retryable": True,
}


def add_asset(
    s: Session,
    store: ObjectStore,
    *,
    project_id: str,
    kind: AssetKind,
    name: str,
    filename: str,
    sha256: str,
    size_bytes: int,
) -> tuple[Asset, bool]:
    """Records bytes already stored under `object_key(project_id, sha256)`; returns (asset, is it new).

    The same bytes of the same kind give the asset that is there. Ring `ring_inspection` after the commit for
    a new one. Raises `QuotaExceeded`, or `ObjectMissing` if the bytes were deleted meanwhile: send them
    again.
    """
    project = lock_project(s, project_id)
    known = _find_bytes(s, project_id, kind, sha256)
    if known is not None:
        return known, False
    if not counts(s, project_id, sha256):
        check_space(s, project, size_bytes)
    add_blob(s, store, project_id, sha256, size_bytes)
    asset = Asset(
        id=new_id(_PREFIX[kind]),
        project_id=project_id,
        kind=kind,
        name=name,
        filename=filename,
        sha256=sha256,
        size_bytes=size_bytes,
        state=AssetState.INSPECTING,
        attempt=0,
        created_at=utcnow(),
    )
    s.add(asset)
    s.flush()
    return asset, True


def get_asset(s: Session, project_id: str, kind: AssetKind, asset_id: str) -> Asset:
    """Raises `NotFound`, also for a deleted one, one of another kind, and one of another project."""
    asset = s.get(Asset, asset_id, populate_existing=True)
    if (
        asset is None
        or asset.project_id != project_id
        or asset.kind is not kind
        or asset.deleted_at is not None
    ):
        raise NotFound(f"There is no {kind} {asset_id}")
    return asset


def find_asset(s: Session, asset_id: str) -> Asset | None:
    """Whatever its project, kind and state; for the worker, and for the names of what jobs used."""
    return s.get(Asset, asset_id)


def find_assets(s: Session, asset_ids: Iterable[str]) -> dict[str, Asset]:
    """By id, deleted ones too."""
    return {asset.id: asset for asset in s.scalars(select(Asset).where(Asset.id.in_(set(asset_ids))))}


def list_assets(
    s: Session, project_id: str, kind: AssetKind, limit: int = 50, cursor: str | None = None
) -> tuple[list[Asset], str | None]:
    """The newest first, and the cursor of the next page (None: that was all)."""
    wish = select(Asset).where(Asset.project_id == project_id, Asset.kind == kind, Asset.deleted_at.is_(None))
    if cursor is not None:
        wish = wish.where(Asset.id < cursor)
    found = list(s.scalars(wish.order_by(Asset.id.desc()).limit(limit + 1)))
    return found[:limit], found[limit - 1].id if len(found) > limit else None


def delete_asset(s: Session, store: ObjectStore, project_id: str, kind: AssetKind, asset_id: str) -> None:
    """Its bytes go after the commit unless something else refers to them. Raises `NotFound`, `AssetInUse`."""
    lock_project(s, project_id)
    asset = get_asset(s, project_id, kind, asset_id)
    user = _live_user(s, project_id, asset_id)
    if user is not None:
        raise AssetInUse(
            f"The {kind} {asset_id} is used by {user}", hint="Cancel the job, or wait until it is done."
        )
    asset.deleted_at = utcnow()
    release_blobs(s, store, project_id, {asset.sha256, asset.used_sha256})


def claim_inspection(
    s: Session, asset_id: str, lease_s: float, now: datetime | None = None, max_attempts: int = 3
) -> Asset | None:
    """The asset, its `attempt` raised, under a lease; None if another worker has it or none is needed.

    A file that ended its inspectors `max_attempts` times is refused here; the sweep removes its bytes.
    """
    now = now or utcnow()
    free = or_(Asset.lease_expires_at.is_(None), Asset.lease_expires_at < now)
    values = {"attempt": Asset.attempt + 1, "lease_expires_at": now + timedelta(seconds=lease_s)}
    claimed = _move(s, asset_id, _waiting() & free & (Asset.attempt < max_attempts), values)
    if claimed is None:
        values = {
            "state": AssetState.REFUSED,
            "error": _POISON,
            "inspected_at": now,
            "lease_expires_at": None,
        }
        _move(s, asset_id, _waiting() & free & (Asset.attempt >= max_attempts), values)
    return claimed


def finish_inspection(s: Session, asset_id: str, attempt: int, summary: dict[str, Any]) -> bool:
    """Keeps what was found; False if another attempt has taken over or the asset was deleted."""
    values = {
        "state": AssetState.READY,
        "summary": summary,
        "inspected_at": utcnow(),
        "lease_expires_at": None,
    }
    return _move(s, asset_id, _waiting() & (Asset.attempt == attempt), values) is not None


def keep_conversion(
    s: Session, store: ObjectStore, asset_id: str, attempt: int, *, sha256: str, size_bytes: int
) -> Asset:
    """Notes stored bytes as what the upload was converted to: jobs then read these.

    The asset as it is now: without them if another attempt has taken over. Raises `QuotaExceeded`,
    `ObjectMissing`.
    """
    asset = s.get_one(Asset, asset_id)
    project = lock_project(s, asset.project_id)
    if not counts(s, project.id, sha256):
        check_space(s, project, size_bytes)
    add_blob(s, store, project.id, sha256, size_bytes)
    values = {"converted_sha256": sha256, "converted_size_bytes": size_bytes}
    return _move(s, asset_id, _waiting() & (Asset.attempt == attempt), values) or asset


def refuse_asset(s: Session, store: ObjectStore, asset_id: str, attempt: int, error: dict[str, Any]) -> bool:
    """Keeps why the bytes were refused, and gives the bytes up; False if another attempt has taken over."""
    values = {"state": AssetState.REFUSED, "error": error, "inspected_at": utcnow(), "lease_expires_at": None}
    asset = _move(s, asset_id, _waiting() & (Asset.attempt == attempt), values)
    if asset is not None:
        release_blobs(s, store, asset.project_id, {asset.sha256, asset.used_sha256})
    return asset is not None


def lost_inspections(
    s: Session, now: datetime, ring_again_s: float, *, patience_s: float | None = None, limit: int = 100
) -> list[str]:
    """Ids to ring for: nobody holds them, and they were not rung for in the last `ring_again_s` seconds.

    `patience_s` is given where the broker still holds messages of inspections: it is what counts for those that
    nobody ever held, since theirs are most likely among them.
    """

    def silent_for(seconds: float) -> ColumnElement[bool]:
        return or_(Asset.rung_at.is_(None), Asset.rung_at < now - timedelta(seconds=seconds))

    never_held = Asset.lease_expires_at.is_(None) & silent_for(patience_s or ring_again_s)
    given_up = (Asset.lease_expires_at < now) & silent_for(ring_again_s)
    lost = select(Asset.id).where(_waiting(), or_(never_held, given_up))
    return list(s.scalars(lost.order_by(Asset.id).limit(limit)))


def mark_rung(s: Session, asset_id: str) -> None:
    s.execute(update(Asset).where(Asset.id == asset_id).values(rung_at=utcnow()))


def _waiting() -> ColumnElement[bool]:
    return (Asset.state == AssetState.INSPECTING) & Asset.deleted_at.is_(None)


def _move(s: Session, asset_id: str, guard: ColumnElement[bool], values: dict[str, Any]) -> Asset | None:
    changed = update(Asset).where(Asset.id == asset_id, guard).values(**values).returning(Asset)
    options = {"populate_existing": True, "synchronize_session": False}
    return s.scalars(changed, execution_options=options).one_or_none()


def _find_bytes(s: Session, project_id: str, kind: AssetKind, sha256: str) -> Asset | None:
    alive = (Asset.deleted_at.is_(None)) & (Asset.state != AssetState.REFUSED)
    wish = select(Asset).where(
        Asset.project_id == project_id, Asset.sha256 == sha256, Asset.kind == kind, alive
    )
    return s.scalars(wish.order_by(Asset.id)).first()


def _live_user(s: Session, project_id: str, asset_id: str) -> str | None:
    """Id of a job that still reads the asset. A project's live jobs are few: its quotas bound them."""
    live = select(Job.id, Job.model_id, Job.data, Job.models).where(
        Job.project_id == project_id, Job.state.in_(LIVE_STATES)
    )
    for job_id, model_id, data, models in s.execute(live):
        if asset_id in (model_id, *data.values(), *(models or ())):
            return str(job_id)
    return None
