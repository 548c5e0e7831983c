"""What a freshly forked child does to itself before it touches anything a user sent. There is no way back."""

import contextlib
import os
import resource
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from worker import landlock, linux, seccomp

_THREADS = 1024
_CPU_GRACE_S = 5


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one child. What cannot be limited by the kernel is watched by the supervisor."""

    memory_bytes: int
    wall_s: float
    cpu_s: float
    disk_bytes: int
    """Of all files in the child's folder together; also of each."""
    open_files: int = 1024
    processes: int = 16
    entries: int = 20_000
    """Files and folders in the child's folder."""
    output_bytes: int = 8 * 2**20
    """Written to stdout and stderr."""

    def document(self) -> dict[str, Any]:
        return asdict(self)


def confine(folder: Path, view: Mapping[str, Any], limits: Limits, *, nested: bool) -> None:
    """Called once, in the child. Raises `OSError` where a fence that the platform has cannot be put up.

    `nested`: the root holds little but the job folders already, and the other jobs' are to be hidden too.
    """
    os.setsid()
    _volunteer_for_the_oom_killer()
    own_users = nested and _hide_other_jobs(folder, Path(view["jobs"]))
    os.chdir(folder)
    _limit(limits, own_users=own_users)
    linux.no_new_privileges()
    if landlock.version():
        read = (*view["read"], "/proc")
        landlock.restrict(read=read, write=(str(folder),), devices=view["devices"])
    linux.drop_capabilities()
    linux.hide_process()
    linux.die_with_parent(signal.SIGKILL)
    if seccomp.supported():
        seccomp.forbid()


def _volunteer_for_the_oom_killer() -> None:
    """When the machine runs out of memory, a job goes before the worker does."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _hide_other_jobs(folder: Path, jobs: Path) -> bool:
    """In a mount namespace of its own, the child sees its own folder alone.

    Some systems let nobody do so inside bubblewrap; Landlock then keeps the other folders from it.
    """
    uid, gid = os.getuid(), os.getgid()
    try:
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
        linux.map_user(uid, gid)
        _show_only(folder, jobs)
    except OSError:
        return False
    return True


def _show_only(folder: Path, jobs: Path) -> None:
    descriptor = os.open(folder, os.O_PATH)
    linux.mount("tmpfs", str(jobs), "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=64k,mode=755")
    folder.mkdir()
    linux.bind(f"/proc/self/fd/{descriptor}", str(folder), read_only=False)
    os.close(descriptor)


def _limit(limits: Limits, *, own_users: bool) -> None:
    """Memory is limited as data, not as addresses.

    CUDA and memory-mapped models need addresses by the terabyte.
    """
    inherited = _data_bytes()
    wishes = {
        resource.RLIMIT_DATA: limits.memory_bytes + inherited,
        resource.RLIMIT_FSIZE: limits.disk_bytes,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_MEMLOCK: 64 * 2**20,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_CORE: 0,
    }
    if own_users:  # Elsewhere it would count the processes of the whole machine's user.
        wishes[resource.RLIMIT_NPROC] = _THREADS
    for which, wish in wishes.items():
        _, hard = resource.getrlimit(which)
        value = wish if hard == resource.RLIM_INFINITY else min(wish, hard)
        resource.setrlimit(which, (value, value))
    cpu_s = max(1, round(limits.cpu_s))
    resource.setrlimit(
        resource.RLIMIT_CPU, (cpu_s, cpu_s + _CPU_GRACE_S)
    )  # XCPU first, so that it can be told.


def _data_bytes() -> int:
    """What the warm parent had when it forked."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0
