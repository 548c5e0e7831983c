"""API keys: shown once, known by their hash."""

import hashlib

import pytest
from sqlalchemy import select

from db import keys
from db.models import ApiKey, Project
from db.session import Database


def make(database: Database, project: Project) -> tuple[ApiKey, str]:
    with database.transaction() as s:
        return keys.create_key(s, project, "ci", [keys.Scope.JOBS_READ, "models:read"])


def test_a_key_is_found_by_its_secret(database: Database, project: Project) -> None:
    key, secret = make(database, project)
    with database.read() as s:
        found = keys.find_key(s, secret)
    assert found is not None
    assert (found.id, found.project_id, found.scopes) == (key.id, project.id, ["jobs:read", "models:read"])
    assert secret.startswith("mpk_")
    assert len(secret) == len("mpk_") + 36 + 1 + 6


def test_only_the_hash_is_stored(database: Database, project: Project) -> None:
    _, secret = make(database, project)
    with database.read() as s:
        row = s.execute(select(ApiKey.__table__)).one()
    assert row.sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert secret[:10] == row.prefix
    assert not any(secret[10:30] in str(value) for value in row)


@pytest.mark.parametrize("change", [lambda x: x[:-1] + "!", lambda x: x[:8] + "00000" + x[13:], str.lower])
def test_a_mistyped_secret_fails_before_the_database_is_asked(
    database: Database, project: Project, change: object
) -> None:
    _, secret = make(database, project)
    assert keys.looks_like_secret(secret)
    assert not keys.looks_like_secret(change(secret))  # type: ignore[operator]


@pytest.mark.parametrize("secret", ["", "mpk_", "mpk_ä_1", "x" * 10_000, "mpk_\0", "Bearer x"])
def test_nonsense_is_no_key(database: Database, secret: str) -> None:
    with database.read() as s:
        assert keys.find_key(s, secret) is None


def test_a_revoked_key_opens_nothing(database: Database, project: Project) -> None:
    key, secret = make(database, project)
    with database.transaction() as s:
        assert not keys.revoke_key(s, key.id, project_id="prj_other")
        assert keys.revoke_key(s, key.id)
        assert not keys.revoke_key(s, key.id)
    with database.read() as s:
        assert keys.find_key(s, secret) is None
        assert [listed.revoked_at is not None for listed in keys.list_keys(s, project.id)] == [True]


def test_an_unknown_scope_is_refused(database: Database, project: Project) -> None:
    with pytest.raises(ValueError, match="jobs:steal"), database.transaction() as s:
        keys.create_key(s, project, "x", ["jobs:steal"])


def test_use_is_noted_at_most_once_a_minute(database: Database, project: Project) -> None:
    key, _ = make(database, project)
    used = []
    for _ in range(2):
        with database.transaction() as s:
            keys.touch_key(s, key.id)
        with database.read() as s:
            used.append(s.scalars(select(ApiKey.last_used_at)).one())
    assert used[0] is not None
    assert used[0] == used[1]
