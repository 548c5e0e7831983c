"""A process that shuts itself in.

Own namespaces and a root that holds nothing but its view. A small bubblewrap.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from worker.linux import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    MS_NODEV,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    bind,
    die_with_parent,
    map_user,
    mount,
    pivot_root,
    unshare,
)

_ALL = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWPID


def enter(view: Mapping[str, Any]) -> None:
    """Returns in a new process, the first of its own namespace; the calling one only waits for its end.

    Needs a single-threaded process. Raises `OSError` where the platform forbids it.
    """
    uid, gid = os.getuid(), os.getgid()
    unshare(_ALL)
    map_user(uid, gid)
    inner = os.fork()
    if inner:
        _wait_for(inner)
    die_with_parent()
    _build_root(view)


def trial(view: Mapping[str, Any]) -> list[str]:
    """A command that ends with 0 if `enter` works here."""
    return [sys.executable, "-s", "-m", "worker.enclosure", json.dumps(view)]


def _wait_for(inner: int) -> NoReturn:
    """The end of the first process ends all others of its namespace."""
    _, status = os.waitpid(inner, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _build_root(view: Mapping[str, Any]) -> None:
    """Mounts are made outermost first, so that one never covers another."""
    root = view["mountpoint"]
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for path in sorted((*view["read"], view["jobs"])):
        _show(root, path, read_only=path != view["jobs"])
    for path in view["devices"]:
        _show(root, path, read_only=False)
    Path(f"{root}/proc").mkdir()
    mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | 8)
    pivot_root(root)


def _show(root: str, path: str, *, read_only: bool) -> None:
    target = Path(root + path)
    source = Path(path)
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink() and source.parent == Path("/"):
        target.symlink_to(source.readlink())
        return
    if source.is_dir():
        target.mkdir()
    else:
        target.touch()
    bind(path, str(target), read_only=read_only)


if __name__ == "__main__":
    enter(json.loads(sys.argv[1]))
    os._exit(0)
