"""The team's deployment on this machine: the services of docker-compose.yml as processes."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from tests.servers import Postgres, free_port, free_ports
from tests.team.deployment import Place, Process, compose

SECRETS = {"POSTGRES_PASSWORD": "pw", "S3_ACCESS_KEY": "teamaccess", "S3_SECRET_KEY": "teamsecret"}
START_S = 60


class Team:
    """What `docker compose up` starts, in its order; `stop` ends one service and says how it ended."""

    def __init__(self, folder: Path, postgres: Postgres, stack: ExitStack) -> None:
        self.services: dict[str, Any] = compose(SECRETS)["services"]
        self.processes: dict[str, Process] = {}
        self._stack = stack
        api, broker, store = free_ports(3)
        self.url = f"http://127.0.0.1:{api}"
        hosts = {
            "@postgres:5432/modelpress": f"@127.0.0.1:{postgres.port}/modelpress",
            "redis:6379": f"127.0.0.1:{broker}",
            "http://s3:8333": f"http://127.0.0.1:{store}",
            "-s3.port=8333": f"-s3.port={store}",
        }
        self.place = Place(folder, hosts)
        self._start_servers(postgres, broker, store)
        self.up("migrate")
        assert self.processes["migrate"].wait(START_S) == 0, self.processes["migrate"].log
        self.up("worker-cpu")
        self.up("worker-inspections")
        self.services["api"]["command"][-1] = str(api)
        self.up("api")
        wait_until(lambda: httpx.get(f"{self.url}/healthz", trust_env=False).is_success)

    def up(self, name: str, *extra: str) -> Process:
        process = self.place.start(name, self.services[name], extra=extra)
        # Ours end politely; SeaweedFS takes half a minute for it.
        self._stack.callback(process.stop if name not in {"redis", "s3"} else process.kill)
        self.processes[name] = process
        return process

    def stop(self, name: str) -> int:
        return self.processes[name].stop()

    def run(self, *command: str) -> str:
        """`docker compose run --rm api COMMAND`."""
        done = self.place.run(self.services["api"], list(command))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def _start_servers(self, postgres: Postgres, broker: int, store: int) -> None:
        """Postgres' image makes the role and the database of its environment; here the test does."""
        postgres.execute("CREATE ROLE modelpress LOGIN PASSWORD 'pw'")
        postgres.execute("CREATE DATABASE modelpress OWNER modelpress")
        self._stack.callback(postgres.execute, "DROP ROLE modelpress")
        self._stack.callback(postgres.drop, "modelpress")
        self.up(
            "redis", "--port", str(broker), "--bind", "127.0.0.1", "--dir", str(self.place.folder / "redis")
        )
        self.up("s3", *_other_ports())
        client = redis.Redis(port=broker)
        wait_until(client.ping)
        client.close()
        wait_until(lambda: httpx.get(f"http://127.0.0.1:{store}/healthz", trust_env=False).is_success)


def wait_until(ready: Any) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            if ready():
                return
        except (httpx.TransportError, redis.ConnectionError):
            pass
        assert time.monotonic() < deadline, "it did not come up"
        time.sleep(0.05)


def _other_ports() -> list[str]:
    """A container has them for itself; here others may have taken them."""
    parts = ("master", "volume", "filer")
    names = [f"{part}.port{kind}" for part in parts for kind in ("", ".grpc")]
    ports = [f"-{name}={free_port()}" for name in (*names, "s3.port.grpc")]
    return [*ports, "-s3.ip.bind=127.0.0.1"]


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Team]:
    with ExitStack() as stack:
        yield Team(tmp_path_factory.mktemp("team"), postgres, stack)
