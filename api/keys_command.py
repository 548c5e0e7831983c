"""`python -m api keys`: API keys from the command line, straight on the database."""

import argparse
import sys

from db import keys, projects
from db.errors import StateError
from db.session import Database
from db.settings import Settings


def create(options: argparse.Namespace) -> int:
    settings = Settings()
    database = _open(settings)
    scopes = sorted(keys.SCOPES) if options.scopes == ["all"] else options.scopes
    try:
        with database.transaction() as session:
            project = projects.ensure_project(session, options.project, settings)
            key, secret = keys.create_key(session, project, options.name, scopes)
    except (StateError, ValueError) as error:
        print(f"modelpress: {error}", file=sys.stderr)
        return 1
    finally:
        database.close()
    print(f"{key.id} for project {options.project!r}, scopes: {' '.join(scopes)}", file=sys.stderr)
    print("This is the only time the key is shown:", file=sys.stderr)
    print(secret)
    return 0


def list_all(options: argparse.Namespace) -> int:
    settings = Settings()
    database = _open(settings)
    with database.transaction() as session:
        project = projects.ensure_project(session, options.project, settings)
        for key in keys.list_keys(session, project.id):
            state = "revoked" if key.revoked_at else "active"
            scopes = " ".join(key.scopes)
            print(f"{key.id}  {key.prefix}...  {state}  {key.created_at:%Y-%m-%d}  {scopes}  {key.name}")
    database.close()
    return 0


def revoke(options: argparse.Namespace) -> int:
    database = _open(Settings())
    with database.transaction() as session:
        found = keys.revoke_key(session, options.id)
    database.close()
    if not found:
        print(f"modelpress: no active key {options.id}", file=sys.stderr)
        return 1
    return 0


def _open(settings: Settings) -> Database:
    database = Database(settings)
    database.migrate()
    return database
