"""Alembic's entry: runs on the connection that `db.schema` hands over, or on the one the settings name."""

from alembic import context
from sqlalchemy import Connection

from db.models import Base
from db.session import Database
from db.settings import Settings


def main() -> None:
    connection = context.config.attributes.get("connection")
    if connection is not None:
        _run(connection)
        return
    database = Database(Settings())
    try:
        with database.engine.execution_options(writes=True).begin() as opened:
            _run(opened)
    finally:
        database.close()


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


main()
