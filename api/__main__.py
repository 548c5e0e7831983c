"""`python -m api`: the command line. Each command is a few lines here and one function elsewhere."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from db.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    signal.signal(signal.SIGTERM, _leave)
    options, rest = _parser().parse_known_args(arguments)
    if rest and options.run is not worker:
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    try:
        status: int = options.run(options)
    except KeyboardInterrupt:
        return 130
    return status


def serve(options: argparse.Namespace) -> int:
    from api.embedded import Service, ServiceError

    try:
        with Service(host=options.host, port=options.port, data=options.data) as service:
            print(f"Modelpress is up.  Swagger UI: {service.url}/docs   pages: {service.url}/", flush=True)
            print(f"Data and logs are in {service.settings.data}.  Ctrl-C stops it.", flush=True)
            if service.auth:
                print("API keys are required: python -m api keys create --project default", flush=True)
            service.watch()
    except ServiceError as error:
        print(f"modelpress: {error}", file=sys.stderr)
        return 1
    return 0


def http(options: argparse.Namespace) -> int:
    import uvicorn

    from api.app import create_app
    from api.embedded import is_loopback

    settings = Settings()
    if not settings.broker_url:
        print("modelpress: MODELPRESS_BROKER_URL is not set; `serve` brings its own broker", file=sys.stderr)
        return 2
    if settings.auth is None:
        on_loopback = options.fd is None and is_loopback(options.host)
        settings = settings.model_copy(update={"auth": not on_loopback})
    uvicorn.run(
        create_app(settings),
        host=options.host,
        port=options.port,
        fd=options.fd,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    return 0


def worker(options: argparse.Namespace) -> int:
    """The worker is a program of its own, so that this package never imports it."""
    os.execv(sys.executable, [sys.executable, "-m", "worker", *options.rest])


def migrate(options: argparse.Namespace) -> int:
    from db.errors import StorageError
    from db.session import Database
    from db.storage import open_store

    settings = Settings()
    database, store = Database(settings), open_store(settings)
    try:
        database.migrate()
        store.prepare()
    except StorageError as error:
        print(f"modelpress: {error}", file=sys.stderr)
        return 1
    finally:
        database.close()
        store.close()
    return 0


def ping(options: argparse.Namespace) -> int:
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(options.url, timeout=2) as response:
            return int(response.status != 200)
    except (URLError, OSError) as error:
        print(f"modelpress: {options.url}: {error}", file=sys.stderr)
        return 1


def demo(options: argparse.Namespace) -> int:
    from api.demo import run_demo

    return run_demo(report=options.report)


def openapi(options: argparse.Namespace) -> int:
    from api.openapi import check_document, write_document

    return check_document() if options.check else write_document()


def methods(options: argparse.Namespace) -> int:
    from api.methods_page import check_page, write_page

    return check_page() if options.check else write_page()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m api",
        description="Modelpress compresses neural networks as asynchronous jobs.",
        epilog="Settings come from MODELPRESS_* variables; whatever is not set is embedded.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = commands.add_parser("serve", help="run the whole service on this machine")
    command.add_argument("--host", default="127.0.0.1", help="beyond loopback, keys are required")
    command.add_argument("--port", type=int, default=8000, help="0 takes a free one and prints it")
    command.add_argument("--data", type=Path, help="folder for everything (default: ./data)")
    command.set_defaults(run=serve)

    command = commands.add_parser(
        "http", help="run the HTTP face alone, beside a broker and workers of its own"
    )
    command.add_argument("--host", default="127.0.0.1")
    command.add_argument("--port", type=int, default=8000)
    command.add_argument("--fd", type=int, help="serve on this inherited listening socket instead")
    command.set_defaults(run=http)

    command = commands.add_parser("worker", add_help=False, help="run a worker (see `worker --help`)")
    command.set_defaults(run=worker)

    command = commands.add_parser(
        "migrate", help="bring the database to the newest schema and make the bucket"
    )
    command.set_defaults(run=migrate)

    command = commands.add_parser("ping", help="exit with 0 when the HTTP face is up; for health checks")
    command.add_argument("url", nargs="?", default="http://127.0.0.1:8000/healthz")
    command.set_defaults(run=ping)

    command = commands.add_parser(
        "demo", help="train, upload, compress three ways, compare; then stop everything"
    )
    command.add_argument(
        "--report", type=Path, default=Path("comparison.html"), help="where the HTML comparison goes"
    )
    command.set_defaults(run=demo)

    _add_keys(commands)
    for name, run, what in (
        ("openapi", openapi, "openapi/openapi.json"),
        ("methods", methods, "docs/methods.md"),
    ):
        command = commands.add_parser(name, help=f"write {what}, or check that it is current")
        mode = command.add_mutually_exclusive_group(required=True)
        mode.add_argument("--write", action="store_true")
        mode.add_argument("--check", action="store_true")
        command.set_defaults(run=run)
    return parser


def _add_keys(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from api import keys_command

    command = commands.add_parser("keys", help="create, list and revoke API keys")
    actions = command.add_subparsers(title="actions", required=True, metavar="ACTION")

    action = actions.add_parser("create", help="make a key for a project and show it once")
    action.add_argument("--project", required=True, help="made if it does not exist")
    action.add_argument("--name", default="", help="what the key is for")
    action.add_argument(
        "--scopes", nargs="+", default=["all"], help="such as models:read jobs:write; default: all"
    )
    action.set_defaults(run=keys_command.create)

    action = actions.add_parser("list", help="show the keys of a project")
    action.add_argument("--project", required=True)
    action.set_defaults(run=keys_command.list_all)

    action = actions.add_parser("revoke", help="end a key at once")
    action.add_argument("id", help="key_...")
    action.set_defaults(run=keys_command.revoke)


def _leave(signum: int, frame: object) -> NoReturn:
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
