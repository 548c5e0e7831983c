"""The whole embedded service as its users start it: one command, a free port, a folder of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ADDRESS = re.compile(r"http://[\d.]+:\d+")


@dataclass(frozen=True)
class Served:
    url: str
    data: Path
    process: "subprocess.Popen[str]"


def environment() -> dict[str, str]:
    """This process's environment without any Modelpress setting of its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MODELPRESS_")}


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    data = tmp_path_factory.mktemp("service")
    command = [sys.executable, "-m", "api", "serve", "--port", "0", "--data", str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            assert process.stdout is not None
            found = ADDRESS.search(process.stdout.readline())
            assert found, f"no address was printed; see {data / 'logs'}"
            yield Served(found.group(), data, process)
        finally:
            process.terminate()
            process.wait(60)
