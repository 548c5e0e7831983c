"""How long the sandbox takes from a request to an answer, at each isolation level that works here.

python benchmarks/sandbox_start.py
"""

import statistics
import tempfile
import time
from pathlib import Path

from worker import isolation
from worker.child import DESCRIBE_DEVICES
from worker.confinement import Limits
from worker.isolation import Isolation
from worker.sandbox import Sandbox

RUNS = 50
LIMITS = Limits(memory_bytes=2**30, wall_s=30, cpu_s=30, disk_bytes=2**20)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        best = isolation.best(isolation.make_view(Path(folder), ("worker", "compression")))
    weaker = list(Isolation)[list(Isolation).index(best) :]
    print("| level | cold start | warm start, median | 95th percentile |\n|---|---|---|---|")
    for level in weaker:
        cold_s, warm_s = _measure(level)
        ordered = sorted(warm_s)
        median_ms, high_ms = 1000 * statistics.median(ordered), 1000 * ordered[int(0.95 * RUNS)]
        print(f"| {level} | {cold_s:.2f} s | {median_ms:.0f} ms | {high_ms:.0f} ms |")


def _measure(level: Isolation) -> tuple[float, list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        sandbox = Sandbox(Path(folder), level=level)
        try:
            sandbox.wait_until_ready()
            cold_s = time.perf_counter() - began
            return cold_s, [_run_once(sandbox) for _ in range(RUNS)]
        finally:
            sandbox.close()


def _run_once(sandbox: Sandbox) -> float:
    with sandbox.folder("start") as folder:
        began = time.perf_counter()
        sandbox.run(DESCRIBE_DEVICES, folder, {}, limits=LIMITS)
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
