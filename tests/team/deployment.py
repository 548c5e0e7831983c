"""Runs the services of docker-compose.yml as local processes: the very commands and environment, other host names."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"\$\{(\w+)(?::?([-?])([^}]*))?\}")


def compose(variables: Mapping[str, str]) -> dict[str, Any]:
    """The compose file with its variables filled in, as docker compose would; a required one must be given."""

    def fill(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if name in variables:
            return variables[name]
        if kind == "-":
            return rest
        raise KeyError(f"{name}: {rest}")

    document: dict[str, Any] = yaml.safe_load(VARIABLE.sub(fill, COMPOSE.read_text()))
    return document


class Process:
    """One service of the compose file."""

    def __init__(
        self, service: Mapping[str, Any], hosts: Mapping[str, str], folder: Path, port: str | None = None
    ) -> None:
        command = [part if port is None or part != "8000" else port for part in service["command"]]
        if command[0] == "python":
            command[0] = sys.executable
        folder.mkdir(parents=True, exist_ok=True)
        environment = {name: _replaced(str(value), hosts) for name, value in service["environment"].items()}
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=_bare() | environment | {"MODELPRESS_DATA": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(self, seconds: float) -> int:
        return self.process.wait(seconds)

    def stop(self) -> int:
        """Ends it as `docker compose stop` does: TERM, the grace period, KILL."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            self.log.close()


def _bare() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("MODELPRESS_")}


def _replaced(value: str, hosts: Mapping[str, str]) -> str:
    for name, address in hosts.items():
        value = value.replace(name, address)
    return value
