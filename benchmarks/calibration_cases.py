"""The calibrators that `benchmarks.calibration` compares; run as a module it measures one of them."""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from compression import runtime
from compression.graph import clean, interface, layers, load, save, upgrade_opset
from compression.method import StepContext
from compression.quantization.calibration import calibrate
from compression.quantization.qdq import MIN_OPSET
from compression.quantization.ranges.error import Integers
from compression.quantization.ranges.rules import Ranges, Rule
from compression.quantization.regions import ALL_GROUPS, find_region

SIDE = 416
THREADS = os.cpu_count() or 1
_DIFFERENT = 16
"""Images in memory; more are these over again, so that the data itself takes no more memory."""


def measure(name: str, images: int, model: Path, folder: Path) -> dict[str, float]:
    """Seconds, as such and over those of plain inference, and the peak resident memory of this process."""
    prepared = folder / "prepared.onnx"
    if not prepared.exists():
        save(clean(upgrade_opset(load(model), MIN_OPSET)), prepared)
    feeds = _Feeds(prepared, images)
    plain = _plain(prepared, feeds)
    start = time.perf_counter()
    CASES[name](prepared, feeds, folder)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"seconds": seconds, "times": seconds / plain, "peak_mb": peak}


class _Feeds:
    """Smooth noise in the range of pixels."""

    def __init__(self, model: Path, count: int) -> None:
        (image,) = interface(load(model))[0]
        self.name, self.count = image.name, count
        rng = np.random.default_rng(0)
        self.images = [_smooth(rng) for _ in range(_DIFFERENT)]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for index in range(self.count):
            yield {self.name: self.images[index % _DIFFERENT]}


def _smooth(rng: np.random.Generator) -> np.ndarray:
    coarse = rng.uniform(0, 255, (1, 3, SIDE // 16, SIDE // 16)).repeat(16, 2).repeat(16, 3)
    return np.clip(coarse + rng.normal(0, 16, coarse.shape), 0, 255).astype(np.float32)


def _plain(model: Path, feeds: _Feeds) -> float:
    session = runtime.open_session(model, device="cpu", threads=THREADS)
    runtime.run(session, next(iter(feeds)))
    start = time.perf_counter()
    for feed in feeds:
        runtime.run(session, feed)
    return time.perf_counter() - start


def _nothing(_model: Path, feeds: _Feeds, _folder: Path) -> None:
    """Plain inference once more, to see how steady the machine is."""
    _plain(_model, feeds)


def _ours(*names: Ranges, folds: int = 1) -> Callable[[Path, _Feeds, Path], None]:
    def run(path: Path, feeds: _Feeds, folder: Path) -> None:
        model = load(path)
        names_of_layers = frozenset(layer.name for layer in layers(model))
        tensors = find_region(model.graph, names_of_layers, ALL_GROUPS).touched
        context = StepContext(
            workdir=folder, data={}, device="cpu", threads=THREADS, seed=0, report=lambda *_: None
        )
        drawing = names != ("minmax",)
        seen = calibrate(model, tensors, feeds, context, expected=len(feeds), drawing=drawing, folds=folds)
        for name in names:
            seen.ranges(Rule(ranges=name, integers=Integers(dtype=np.uint8)))

    return run


def _theirs(method: str) -> Callable[[Path, _Feeds, Path], None]:
    """onnxruntime's calibrator on the operators that its quantize_static takes by default."""

    def run(path: Path, feeds: _Feeds, folder: Path) -> None:
        from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
        from onnxruntime.quantization.calibrate import create_calibrator
        from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self.feeds = iter(feeds)

            def get_next(self) -> Any:
                return next(self.feeds, None)

        kinds = sorted({*QDQRegistry, *QLinearOpsRegistry})
        augmented = str(folder / f"{method}.onnx")
        calibrator = create_calibrator(
            path, kinds, augmented_model_path=augmented, calibrate_method=CalibrationMethod[method]
        )
        calibrator.collect_data(Reader())
        calibrator.compute_data()

    return run


def _nncf(path: Path, feeds: _Feeds, _folder: Path) -> None:
    import nncf

    nncf.quantize(onnx.load(path), nncf.Dataset(list(feeds)), subset_size=len(feeds))


CASES: dict[str, Callable[[Path, _Feeds, Path], None]] = {
    "plain inference again": _nothing,
    "modelpress: minmax": _ours("minmax"),
    "modelpress: minmax, percentile, entropy and mse": _ours("minmax", "percentile", "entropy", "mse"),
    "modelpress: grid_search, 3 folds": _ours("grid_search", folds=3),
    "onnxruntime: MinMax": _theirs("MinMax"),
    "onnxruntime: Percentile": _theirs("Percentile"),
    "onnxruntime: Entropy": _theirs("Entropy"),
    "nncf.quantize": _nncf,
}


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    answer = measure(request["name"], request["images"], Path(request["model"]), Path(request["folder"]))
    print(json.dumps(answer))
