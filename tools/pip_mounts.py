"""Prints the options that bring this machine's pip set-up into an image build.

Usage: pip_mounts.py FILE. The settings, of its files and of the environment, are written to FILE. Every path
they name is mounted where it lies here; one option per line comes out on stdout.
"""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

SETTING = re.compile(r"^(?P<section>[^.]+)\.(?P<name>[^=]+)='(?P<value>.*)'$")
OF_THE_BUILD = {"no-cache-dir", "cache-dir", "root-user-action"}


def main(target: Path) -> None:
    settings = read_settings()
    lines = [f"{name} = {value}" for name, value in settings.items() if name not in OF_THE_BUILD]
    target.write_text("\n".join(["[global]", *lines, ""]))
    print(f"--volume={target.resolve()}:/etc/pip.conf:ro")
    for path in local_paths(settings.values()):
        print(f"--volume={path}:{path}:ro")


def read_settings() -> dict[str, str]:
    """As `pip config list` tells them; the environment's win over the files'."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    found = [match for line in told.stdout.splitlines() if (match := SETTING.match(line))]
    found.sort(key=lambda match: match["section"] == ":env:")
    return {match["name"]: match["value"].replace("\\n", " ") for match in found}


def local_paths(values: Iterable[str]) -> list[Path]:
    """What the settings name here; of a local index also the files beside it, to which its pages point."""
    words = [word for value in values for word in value.split() if word.startswith(("/", "file://"))]
    paths = {Path(unquote(urlsplit(word).path)) for word in words}
    return sorted(path.parent if path.name == "simple" else path for path in paths if path.exists())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
