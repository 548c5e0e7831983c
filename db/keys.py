"""API keys: a secret that is shown once, and the hash by which it is known again."""

import hashlib
import hmac
import secrets
import zlib
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum

from sqlalchemy import or_, select, true, update
from sqlalchemy.orm import Session

from db.clock import utcnow
from db.ids import new_id
from db.models import ApiKey, Project

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_CHARS = 36  # 214 bits, so that a plain hash is enough to store.
_SHOWN_CHARS = 10


class Scope(StrEnum):
    MODELS_READ = "models:read"
    MODELS_WRITE = "models:write"
    DATASETS_READ = "datasets:read"
    DATASETS_WRITE = "datasets:write"
    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"


SCOPES = tuple(Scope)


def create_key(s: Session, project: Project, name: str, scopes: Sequence[str]) -> tuple[ApiKey, str]:
    """A new key and its secret, `mpk_<36 characters>_<checksum>`, which is stored nowhere.

    Raises ValueError for a scope that is not in `SCOPES`.
    """
    secret = _new_secret()
    key = ApiKey(
        id=new_id("key"),
        project_id=project.id,
        name=name,
        prefix=secret[:_SHOWN_CHARS],
        sha256=_sha256(secret),
        scopes=sorted({str(Scope(scope)) for scope in scopes}),
        created_at=utcnow(),
    )
    s.add(key)
    s.flush()
    return key, secret


def find_key(s: Session, secret: str) -> ApiKey | None:
    """The key whose secret this is, unless it was revoked. A mistyped secret fails its checksum without a
    query.
    """
    if not looks_like_secret(secret):
        return None
    digest = _sha256(secret)
    key = s.scalars(select(ApiKey).where(ApiKey.sha256 == digest, ApiKey.revoked_at.is_(None))).one_or_none()
    return key if key is not None and hmac.compare_digest(key.sha256, digest) else None


def needs_touch(key: ApiKey) -> bool:
    """Whether `touch_key` would write: its use was last noted more than a minute ago."""
    return key.last_used_at is None or key.last_used_at < utcnow() - timedelta(minutes=1)


def touch_key(s: Session, key_id: str) -> None:
    """Notes that the key was used, at most once a minute. Needs a writing transaction."""
    now = utcnow()
    long_ago = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < now - timedelta(minutes=1))
    s.execute(update(ApiKey).where(ApiKey.id == key_id, long_ago).values(last_used_at=now))


def list_keys(s: Session, project_id: str) -> list[ApiKey]:
    """Revoked ones too, the newest first."""
    return list(s.scalars(select(ApiKey).where(ApiKey.project_id == project_id).order_by(ApiKey.id.desc())))


def revoke_key(s: Session, key_id: str, project_id: str | None = None) -> bool:
    """From the commit on the key opens nothing. False: no active key has this id (in that project, where
    given).
    """
    mine = true() if project_id is None else ApiKey.project_id == project_id
    active = update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None), mine)
    return s.scalar(active.values(revoked_at=utcnow()).returning(ApiKey.id)) is not None


def looks_like_secret(text: str) -> bool:
    """Whether `text` has the form and the checksum of a secret."""
    body, _, checksum = text.rpartition("_")
    return text.startswith("mpk_") and text.isascii() and hmac.compare_digest(_checksum(body), checksum)


def _new_secret() -> str:
    body = "mpk_" + "".join(secrets.choice(_BASE62) for _ in range(_SECRET_CHARS))
    return f"{body}_{_checksum(body)}"


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    return "".join(_BASE62[number // 62**power % 62] for power in range(5, -1, -1))


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
