"""How quick the service is around a job: start, submit to running, upload rate and memory; writes service.md.

make bench      (python -m benchmarks.service [--gigabytes 3] [--jobs 30])

Runs on an embedded service of its own, in a temporary folder; wants a machine with nothing else to do, and twice the
upload's size of disk.
"""

import argparse
import os
import platform
import statistics
import tempfile
from pathlib import Path

import httpx

from api.embedded import Service
from benchmarks.service_start import Start, measure_start
from benchmarks.service_submit import measure_submit
from benchmarks.service_upload import Upload, measure_upload

PAGE = Path(__file__).with_suffix(".md")
MIB = 2**20


def main() -> None:
    options = _parser().parse_args()
    start = measure_start(runs=7)
    with tempfile.TemporaryDirectory(prefix="modelpress-bench-", dir=options.folder) as name:
        folder = Path(name)
        with Service(port=0, data=folder / "service") as service, _client(service) as client:
            waits_ms = measure_submit(client, folder, jobs=options.jobs)
            upload = measure_upload(client, service, folder, size_bytes=int(options.gigabytes * 10**9))
    page = _page(start, waits_ms, upload, options)
    print(page)
    PAGE.write_text(page)


def _client(service: Service) -> httpx.Client:
    return httpx.Client(base_url=service.url, timeout=600, trust_env=False)


def _page(start: Start, waits_ms: list[float], upload: Upload, options: argparse.Namespace) -> str:
    rows = [
        ("API: from start to the first answer, median of 7", f"{start.seconds:.2f} s", "under 2 s"),
        ("... torch or onnxruntime in its memory", "yes" if start.heavy else "no", "no"),
        ("... its resident memory", f"{start.resident_bytes / MIB:.0f} MiB", ""),
        (
            f"From submit to `running`, median of {len(waits_ms)}",
            _ms(statistics.median(waits_ms)),
            "under 300 ms",
        ),
        ("... 90th percentile", _ms(statistics.quantiles(waits_ms, n=10)[-1]), ""),
        (f"Upload of {upload.size_bytes / 1e9:g} GB", _rate(upload, upload.upload_s), ""),
        ("... the file copied beside it and flushed", _rate(upload, upload.copy_s), ""),
        ("... the file hashed by SHA-256 alone", _rate(upload, upload.hash_s), ""),
        ("... growth of the API's resident memory", f"{upload.growth_bytes / MIB:.0f} MiB", "under 64 MiB"),
    ]
    table = "\n".join(f"| {what} | {value} | {wanted} |" for what, value, wanted in rows)
    return f"""# The service, measured

Written by `python -m benchmarks.service --gigabytes {options.gigabytes:g} --jobs {options.jobs}` (`make bench`) with
Python {platform.python_version()} on {os.cpu_count()} cores ({_processor()}), everything embedded: SQLite, local files.

| | measured | wanted |
|---|---|---|
{table}

- Start: `python -m api http` on a migrated database, until `/healthz` answers.
- Submit to running: from sending the request to the time that the worker wrote into the job's row. One job at a time,
  each with a seed of its own, so that no step comes from the cache.
- Upload: raw bytes of a .safetensors file of zeros, from the first byte to the row: received, hashed, flushed to disk
  and renamed. The inspection that follows is not in it. Upload, copy and hash take turns, {upload.runs} times each;
  the best of each is shown. An upload crosses a loopback connection between two processes and is both hashed and
  written, so the copy and the hash bound it from above.
"""


def _ms(value: float) -> str:
    return f"{value:.0f} ms"


def _rate(upload: Upload, seconds: float) -> str:
    return f"{upload.size_bytes / seconds / 1e6:.0f} MB/s"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure the service around its jobs.")
    parser.add_argument("--gigabytes", type=float, default=3, help="size of the upload (default: 3)")
    parser.add_argument("--jobs", type=int, default=30, help="jobs to submit (default: 30)")
    parser.add_argument(
        "--folder", type=Path, help="where the service's data goes (default: the temporary folder)"
    )
    return parser


if __name__ == "__main__":
    main()
