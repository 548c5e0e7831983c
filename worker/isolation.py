"""How much the platform lets us fence in, found out by trying, and what the fenced in may see.

Limits, Landlock and the system call filter hold at every level, where the kernel has them. Besides:

- `bubblewrap`: own namespaces for processes, network, IPC and users; a root with nothing but the
  interpreter, our code and the job folders
- `namespaces`: the same, made by ourselves (`worker.enclosure`), where `bwrap` is missing but user
  namespaces are allowed
- `rlimits`: nothing more. Landlock alone keeps files from the child, and the filter the network.
"""

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from worker import enclosure

_TRY_S = 20
_SYSTEM = (
    "/usr",
    "/lib",
    "/lib64",
    "/lib32",
    "/bin",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/sys/devices/system",
)
_CUDA = ("/sys", "/etc/OpenCL", "/run/nvidia-persistenced")
_PASSED_ON = (
    "TZ",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
)


class Isolation(StrEnum):
    BUBBLEWRAP = "bubblewrap"
    NAMESPACES = "namespaces"
    RLIMITS = "rlimits"


@dataclass(frozen=True, kw_only=True)
class View:
    """What a child may open: `read` and `devices` for all, and its own folder below `jobs` to write in."""

    jobs: str
    mountpoint: str
    """An empty folder on which the `namespaces` level builds its root."""
    read: tuple[str, ...]
    devices: tuple[str, ...]

    def document(self) -> dict[str, object]:
        return asdict(self)


def make_view(folder: Path, packages: Iterable[str]) -> View:
    """Below `folder`, with the named top-level packages readable beside the interpreter and its libraries."""
    jobs, mountpoint = folder / "jobs", folder / "root"
    for path in (jobs, mountpoint):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    nvidia = tuple(str(path) for path in Path("/dev").glob("nvidia*"))
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    python = (sys.prefix, sys.base_prefix, *map(str, map(_package_folder, packages)))
    read = (*_SYSTEM, *(_CUDA if nvidia else ()), *python, *libraries)
    return View(
        jobs=str(jobs.resolve()),
        mountpoint=str(mountpoint.resolve()),
        read=tuple(dict.fromkeys(path for path in read if path and os.path.exists(path))),  # noqa: PTH110
        devices=("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random", *nvidia),
    )


def environment(packages: Iterable[str]) -> dict[str, str]:
    """All that the warm parent and its children know of the outside.

    One BLAS thread, or forking would be unsafe.
    """
    roots = dict.fromkeys(str(_package_folder(name).parent) for name in packages)
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return kept | {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": "/nonexistent",
        "PYTHONPATH": os.pathsep.join(roots),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "ORT_DISABLE_TELEMETRY": "1",
    }


@functools.cache
def best(view: View) -> Isolation:
    """The strongest level that works here, found out by entering it."""
    for level in (Isolation.BUBBLEWRAP, Isolation.NAMESPACES):
        if _works(level, view):
            return level
    return Isolation.RLIMITS


def command(level: Isolation, view: View, program: Sequence[str]) -> list[str]:
    """The command line that runs `program` with the view alone, where the level is made by a program."""
    if level is not Isolation.BUBBLEWRAP:
        return list(program)
    arguments = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--dev", "/dev"]
    for path in view.read:
        arguments += _show(path)
    for path in view.devices[4:]:
        arguments += ["--dev-bind-try", path, path]
    arguments += ["--proc", "/proc", "--bind", view.jobs, view.jobs]
    return [*arguments, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/", *program]


def _show(path: str) -> list[str]:
    """`/lib` and its like are links into `/usr` on most systems, and stay so."""
    if path in _SYSTEM and os.path.islink(path):  # noqa: PTH114
        return ["--symlink", os.readlink(path), path]  # noqa: PTH115
    return ["--ro-bind", path, path]


def _works(level: Isolation, view: View) -> bool:
    if level is Isolation.BUBBLEWRAP and shutil.which("bwrap") is None:
        return False
    program = [sys.executable, "-I", "-c", "pass"]
    if level is Isolation.NAMESPACES:
        program = enclosure.trial(view.document())
    try:
        done = subprocess.run(
            command(level, view, program),
            env=environment(["worker"]) | {"PATH": os.environ.get("PATH", "/usr/bin:/bin")},
            capture_output=True,
            timeout=_TRY_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"There is no package {name}")
    return Path(next(iter(spec.submodule_search_locations))).resolve()
