"""The database: one engine per process, transactions, and what runs after their commit."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import structlog
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from db import schema
from db.settings import Settings

log = structlog.get_logger(__name__)

BUSY_TIMEOUT_S = 30
_CALLBACKS = "after_commit"
_DATABASE = "database"


class Database:
    """Rows on SQLite or Postgres. Thread-safe; a forked child must make its own.

    Rows stay readable after their session has ended, for nothing expires on commit.
    """

    def __init__(self, settings: Settings) -> None:
        """Opens no connection yet. `settings.database_url` is any SQLAlchemy URL of SQLite or Postgres."""
        self.settings = settings
        self.engine = _open_engine(settings.database_url)
        self._writer = self.engine.execution_options(writes=True)
        self._reader = self.engine.execution_options(postgresql_readonly=True)

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.engine.dialect.name

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that commits at the end, or rolls back when the block raises.

        On SQLite its first statement takes the write lock (BEGIN IMMEDIATE), so that a transaction never
        fails half-way for having read first. Callbacks given to `after_commit` run once the commit is
        durable; what one of them raises is logged, because the caller's work is done by then.
        """
        with Session(self._writer, expire_on_commit=False) as session:
            session.info[_DATABASE] = self
            with session.begin():
                yield session
            callbacks = session.info.pop(_CALLBACKS, [])
        for callback in callbacks:
            _run(callback)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads, on SQLite from one snapshot; writing in it raises on both dialects."""
        with Session(self._reader, expire_on_commit=False, autoflush=False) as session:
            yield session

    def migrate(self) -> None:
        """Brings the tables to the newest revision; of several processes at once, one does the work."""
        if self.dialect == "sqlite":
            _use_wal(self.engine)
        with self._writer.begin() as connection:
            schema.upgrade(connection)

    def is_current(self) -> bool:
        """Whether the tables are at the newest revision."""
        with self.engine.connect() as connection:
            return schema.is_current(connection)

    def close(self) -> None:
        """Closes every pooled connection."""
        self.engine.dispose()


def after_commit(session: Session, callback: Callable[[], object]) -> None:
    """Runs `callback` after the commit of the transaction `session` belongs to; never if it rolls back."""
    session.info.setdefault(_CALLBACKS, []).append(callback)


def lock(session: Session, name: str) -> None:
    """Waits until no other transaction has locked `name`, and holds it until this one ends.

    SQLite needs no such thing: there, one transaction writes at a time.
    """
    if database_of(session).dialect == "postgresql":
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
        session.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})


def database_of(session: Session) -> Database:
    """The database whose `transaction()` opened this session."""
    return cast("Database", session.info[_DATABASE])


def _run(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception:
        log.exception("after_commit_failed", callback=repr(callback))


def _open_engine(database_url: str) -> Engine:
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        return _open_sqlite(database_url, Path(url.database or ""))
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    options = {"pool_size": 5, "max_overflow": 20, "pool_pre_ping": True, "json_serializer": schema.to_json}
    return create_engine(url, connect_args={"connect_timeout": 5}, **options)


def _open_sqlite(database_url: str, path: Path) -> Engine:
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        database_url,
        connect_args={"timeout": BUSY_TIMEOUT_S},
        pool_size=10,
        max_overflow=50,
        json_serializer=schema.to_json,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    """Leaves BEGIN to us, since the driver's own comes too late for consistent reads."""
    sqlite = cast("Any", connection)
    sqlite.isolation_level = None
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        sqlite.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql(f"PRAGMA query_only={'OFF' if writes else 'ON'}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _use_wal(engine: Engine) -> None:
    """The journal mode is kept in the file, so it is set once, here, and not by every connection."""
    raw = engine.raw_connection()
    try:
        raw.cursor().execute("PRAGMA journal_mode=WAL")
    finally:
        raw.close()
