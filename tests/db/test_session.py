"""Transactions, their callbacks, and the guard against writing while reading."""

import multiprocessing
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from db.models import Project
from db.projects import ensure_project
from db.session import Database, after_commit
from db.settings import Settings


def names(database: Database) -> list[str]:
    with database.read() as s:
        return list(s.scalars(select(Project.name).order_by(Project.name)))


def test_a_block_that_raises_leaves_nothing_behind_and_runs_no_callback(
    database: Database, settings: Settings
) -> None:
    called: list[str] = []
    with pytest.raises(ZeroDivisionError), database.transaction() as s:
        ensure_project(s, "lost", settings)
        after_commit(s, lambda: called.append("x"))
        raise ZeroDivisionError
    assert names(database) == []
    assert called == []


def test_callbacks_run_in_order_after_the_commit_and_a_broken_one_stops_no_other(
    database: Database, settings: Settings
) -> None:
    seen: list[object] = []
    with database.transaction() as s:
        ensure_project(s, "kept", settings)
        after_commit(s, lambda: seen.append(names(database)))
        after_commit(s, lambda: 1 / 0)
        after_commit(s, lambda: seen.append("last"))
        assert seen == []
    assert seen == [["kept"], "last"]


def test_writing_in_a_read_is_an_error_and_the_connection_stays_usable(
    database: Database, settings: Settings
) -> None:
    with pytest.raises(DBAPIError), database.read() as s:
        s.execute(text("DELETE FROM projects"))
    with database.transaction() as s:
        ensure_project(s, "after", settings)
    assert names(database) == ["after"]


def test_rows_stay_readable_after_their_transaction(database: Database, settings: Settings) -> None:
    with database.transaction() as s:
        project = ensure_project(s, "p", settings)
    assert project.name == "p"
    assert project.created_at.tzinfo is not None


def test_many_threads_write_at_once(database: Database, settings: Settings) -> None:
    def make(number: int) -> str:
        with database.transaction() as s:
            ensure_project(s, f"same-{number % 3}", settings)
            return ensure_project(s, f"own-{number:02}", settings).id

    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(make, range(48)))
    assert len(set(made)) == 48
    assert len(names(database)) == 51


def test_sqlite_keeps_what_it_committed(sqlite_url: str, tmp_path: Path) -> None:
    database = Database(Settings(data=tmp_path, database_url=sqlite_url))
    database.migrate()
    with database.read() as s:
        pragmas = {
            name: s.execute(text(f"PRAGMA {name}")).scalar() for name in ("synchronous", "journal_mode")
        }
        assert pragmas == {"synchronous": 2, "journal_mode": "wal"}
        assert s.execute(text("PRAGMA foreign_keys")).scalar() == 1
        assert s.execute(text("PRAGMA busy_timeout")).scalar() == 30_000
    database.close()


def test_a_write_transaction_on_sqlite_takes_the_lock_with_its_first_read(
    sqlite_url: str, tmp_path: Path
) -> None:
    database = Database(Settings(data=tmp_path, database_url=sqlite_url))
    other = sqlite3.connect(tmp_path / "modelpress.sqlite3", timeout=0)
    with database.transaction() as s:
        s.execute(text("SELECT 1"))
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    other.close()
    database.close()


def _migrate(settings: Settings) -> bool:
    database = Database(settings)
    database.migrate()
    current = database.is_current()
    database.close()
    return current


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_processes_that_migrate_at_once_make_one_schema(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if dialect == "sqlite":
        settings = Settings(data=tmp_path)
    else:
        url = request.getfixturevalue("make_postgres_url")("template0")
        settings = Settings(data=tmp_path, database_url=url)
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert pool.map(_migrate, [settings] * 6, chunksize=1) == [True] * 6
