"""The migrations make exactly the tables that the models describe."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from db import schema
from db.models import Base
from db.session import Database
from db.settings import Settings


def test_models_and_migrations_do_not_drift(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_going_back_removes_every_table(database: Database) -> None:
    with database.engine.execution_options(writes=True).begin() as connection:
        config = schema.config()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]
    assert not database.is_current()


def test_migrating_again_changes_nothing(database: Database) -> None:
    database.migrate()
    assert database.is_current()


@pytest.mark.parametrize("folder", [".", "tests"])
def test_a_first_start_makes_the_data_folder_from_anywhere(tmp_path: Path, folder: str) -> None:
    """No ini file and no working directory is assumed."""
    code = "from db.session import Database; from db.settings import Settings; Database(Settings()).migrate()"
    environment = {"MODELPRESS_DATA": str(tmp_path / "new" / "data"), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, check=True)
    database = Database(Settings(data=tmp_path / "new" / "data"))
    assert database.is_current()
    database.close()
