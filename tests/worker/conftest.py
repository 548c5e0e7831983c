"""Sandboxes for tests: at each isolation level that works here, with hostile entries beside the real ones."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.worker import hostile
from worker import isolation
from worker.child import ENTRIES
from worker.confinement import Limits
from worker.isolation import Isolation
from worker.sandbox import Sandbox

HOSTILE = tuple(
    f"{hostile.__name__}:{name}"
    for name, item in vars(hostile).items()
    if callable(item) and getattr(item, "__module__", "") == hostile.__name__ and not name.startswith("_")
)
LIMITS = Limits(memory_bytes=512 << 20, wall_s=20, cpu_s=30, disk_bytes=64 << 20)


def limits(**changes: float) -> Limits:
    return replace(LIMITS, **changes)


def open_sandbox(folder: Path, level: Isolation | None = None) -> Sandbox:
    return Sandbox(
        folder, level=level, entries=(*ENTRIES, *HOSTILE), packages=("tests",), lock=folder / "timing.lock"
    )


@pytest.fixture(scope="module", params=list(Isolation))
def sandbox(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """One of each level; skipped where the platform forbids it."""
    folder = tmp_path_factory.mktemp("sandbox")
    view = isolation.make_view(folder, ("worker", "compression"))
    if request.param is not Isolation.RLIMITS and not isolation._works(request.param, view):
        pytest.skip(f"{request.param} does not work here")
    sandbox = open_sandbox(folder, request.param)
    yield sandbox
    sandbox.close()


@pytest.fixture(scope="module")
def best_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    sandbox = open_sandbox(tmp_path_factory.mktemp("sandbox"))
    yield sandbox
    sandbox.close()
