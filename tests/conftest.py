"""Fixtures of every test: real servers, started by the first test that needs one, and what stands on them.

- `postgres`, `valkey`, `s3`: the servers, one of each in a session
- `database`: a migrated, empty database; the test runs once on SQLite and once on Postgres
- `store`: an empty object store; the test runs once on local files and once on S3
- `files`: an object store on local files only
- `service_settings`: of a whole service, once embedded (SQLite, local files) and once as a cluster (Postgres,
  S3)
- `project`: a project in `database`
"""

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from db.local_store import LocalStore
from db.models import Project
from db.projects import ensure_project
from db.session import Database
from db.settings import Settings
from db.storage import ObjectStore, open_store
from tests.servers import S3, Postgres, Valkey, running

_TEMPLATE = "template_migrated"
_BUCKET = "modelpress-tests"
_LONG = ("tests/e2e", "tests/worker", "tests/api")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole services first: of their long files none shall be left over for one process at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(_LONG))


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """Short and open to other users, which pytest's own temporary folders are not."""
    with tempfile.TemporaryDirectory(prefix="modelpress-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres(server_folder: Path) -> Iterator[Postgres]:
    server = Postgres(server_folder / "postgres")
    with running(server):
        database = Database(Settings(data=server_folder, database_url=server.create(_TEMPLATE)))
        database.migrate()
        database.close()
        yield server


@pytest.fixture(scope="session")
def valkey(server_folder: Path) -> Iterator[Valkey]:
    server = Valkey(server_folder / "valkey")
    with running(server):
        yield server


@pytest.fixture(scope="session")
def s3(server_folder: Path) -> Iterator[S3]:
    server = S3(server_folder / "s3")
    with running(server):
        server.make_bucket(_BUCKET)
        yield server


@pytest.fixture
def broker_url(valkey: Valkey) -> str:
    """Of an empty broker."""
    valkey.flush()
    return valkey.url


@pytest.fixture(scope="session")
def sqlite_template(server_folder: Path) -> Path:
    path = server_folder / "template.sqlite3"
    database = Database(Settings(data=server_folder, database_url=f"sqlite:///{path}"))
    database.migrate()
    database.close()
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    """Of a migrated SQLite database of this test's own."""
    path = tmp_path / "modelpress.sqlite3"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def make_postgres_url(postgres: Postgres) -> Iterator[Callable[[str], str]]:
    """Makes databases of this test's own from a template: `template0` is an empty one."""
    names: list[str] = []

    def make(template: str) -> str:
        names.append(f"test_{uuid.uuid4().hex}")
        return postgres.create(names[-1], template)

    yield make
    for name in names:
        postgres.drop(name)


@pytest.fixture
def postgres_url(make_postgres_url: Callable[[str], str]) -> str:
    """Of a migrated Postgres database of this test's own."""
    return make_postgres_url(_TEMPLATE)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(data=tmp_path, database_url=database_url)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings)
    yield database
    database.close()


@pytest.fixture
def project(database: Database, settings: Settings) -> Project:
    with database.transaction() as s:
        return ensure_project(s, "default", settings)


@pytest.fixture
def files(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "objects")


@pytest.fixture
def s3_settings(tmp_path: Path, s3: S3) -> Settings:
    """Of a prefix of this test's own."""
    return Settings(data=tmp_path, **s3_options(s3))


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    if request.param == "local":
        store = open_store(Settings(data=tmp_path))
    else:
        store = open_store(request.getfixturevalue("s3_settings"))
    yield store
    store.close()


@pytest.fixture(params=["embedded", "cluster"])
def service_settings(request: pytest.FixtureRequest, tmp_path: Path, broker_url: str) -> Settings:
    """Of a whole service on an empty database, store and broker, in both set-ups that have to work."""
    if request.param == "embedded":
        return Settings(
            data=tmp_path, database_url=request.getfixturevalue("sqlite_url"), broker_url=broker_url
        )
    return Settings(
        data=tmp_path,
        database_url=request.getfixturevalue("postgres_url"),
        broker_url=broker_url,
        **s3_options(request.getfixturevalue("s3")),
    )


def s3_options(s3: S3) -> dict[str, Any]:
    """Settings that name a fresh prefix in the tests' bucket."""
    return {
        "storage_url": f"s3://{_BUCKET}/{uuid.uuid4().hex}",
        "s3_endpoint": s3.endpoint,
        "s3_access_key": s3.access_key,
        "s3_secret_key": s3.secret_key,
    }
