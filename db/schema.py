"""The tables' revision: Alembic run from code, on a connection that is already open."""

import json
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

_LOCK = 0x6D6F64656C  # "model": one number that all processes of the service agree on.


def to_json(value: object) -> str:
    """JSON as stored: real characters instead of escapes, so that the database can compare keys; no NaN."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def config() -> Config:
    """Alembic's configuration; no ini file is needed."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made


def upgrade(connection: Connection) -> None:
    """Runs the missing revisions within the caller's transaction, which has the write lock on SQLite.

    On Postgres an advisory lock, held until the commit, makes a second process wait. It then finds nothing
    to do.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    if is_current(connection):
        return
    with_connection = config()
    with_connection.attributes["connection"] = connection
    command.upgrade(with_connection, "head")


def is_current(connection: Connection) -> bool:
    newest = ScriptDirectory.from_config(config()).get_current_head()
    return MigrationContext.configure(connection).get_current_revision() == newest
