"""int4 weights of MiniLM by this service, onnxruntime and onnxsim, on the same sentences; writes weight_only.md.

python -m benchmarks.weight_only FOLDER

The folder keeps the wheel's files and the exported model. onnxsim is measured where it is found, such as in a folder of
its own that PYTHONPATH names: `pip install --no-deps --target ONNXSIM onnxsim`.
"""

import argparse
import logging
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime.quantization import matmul_nbits_quantizer as rival

from benchmarks.minilm import WordPiece, calibration_ids, export, fetch, held_out_ids
from compression import runtime
from compression.data import open_dataset
from compression.graph import load, save, upgrade_opset
from compression.method import Role, StepContext
from compression.methods.quantize_weights import QuantizeWeights
from compression.quantization.affine import energy, ratio_db

PAGE = Path(__file__).with_suffix(".md")
BLOCK, SAMPLES, LENGTH, HELD_OUT = 32, 512, 64, 300
ZERO_POINTS = 4 / BLOCK
SQUARE = 1 << 20
"""Weights of a matrix of 1024 x 1024."""
ONNXSIM_OPSET = 21
"""Below it onnxsim leaves every product as it is."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    name: str
    bits: float
    """Per weight of a product: code, its share of a scale, its share of a zero point."""
    make: Callable[[], onnx.ModelProto]


@dataclass(frozen=True, kw_only=True)
class Measured:
    name: str
    bits: float
    seconds: float
    """Of processor time, which a busy machine leaves as it is."""
    phases: Mapping[str, float]
    """The same of this service by the first word of what it reports: gathering, rounding, comparing."""
    size_bytes: int
    error: float
    """||X (W - Q)|| / ||X W|| over all products, on held-out rows X of the original."""
    layers: Mapping[str, float]
    sqnr_db: float
    cosine: float
    least_cosine: float
    speed: float


def main() -> None:
    logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    path = fetch(options.folder) / "minilm.onnx"
    if not path.exists():
        export(options.folder, path)
    bench = Bench.prepare(path, options.folder)
    measured = []
    for entry in bench.entries():
        measured.append(bench.measure(entry))
        print(f"{entry.name}: {measured[-1].error:.4f} in {measured[-1].seconds:.1f} s", flush=True)
        PAGE.write_text("\n".join(_page(bench, measured)) + "\n")


class Bench:
    """The model, its products with the held-out moments of their inputs, and the sentences."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.model = onnx.load(path)
        stored = {item.name: item for item in self.model.graph.initializer}
        self.products = {
            node.output[0]: (node.input[0], numpy_helper.to_array(stored[node.input[1]]))
            for node in self.model.graph.node
            if node.op_type == "MatMul" and node.input[1] in stored
        }
        tokens = WordPiece.read(folder)
        ids = calibration_ids(tokens, SAMPLES, LENGTH)
        self.calibration = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        self.held_out = [
            {"input_ids": ids, "attention_mask": np.ones_like(ids)} for ids in held_out_ids(tokens, HELD_OUT)
        ]

    @classmethod
    def prepare(cls, path: Path, folder: Path) -> "Bench":
        bench = cls(path, folder)
        taps = sorted({given for given, _ in bench.products.values()})
        session = runtime.open_session(load(path), device="cpu", threads=1, outputs=taps)
        bench.answers, bench.moments = [], {}
        rows: dict[str, list[np.ndarray]] = {name: [] for name in taps}
        for feed in bench.held_out:
            found = runtime.run(session, feed)
            bench.answers.append({name: found[name] for name in ("hidden_states", "sentence")})
            for name in taps:
                rows[name].append(found[name].reshape(-1, found[name].shape[-1]))
        for name in taps:
            whole = np.concatenate(rows.pop(name)).astype(np.float64)
            bench.moments[name] = whole.T @ whole
        return bench

    @property
    def weights(self) -> int:
        return sum(weight.size for _, weight in self.products.values())

    answers: list[dict[str, np.ndarray]]
    reports: list[tuple[float, str]]
    """Processor time at which the service told what it was doing, and the first word of it."""
    moments: dict[str, np.ndarray]

    def entries(self) -> Iterator[Entry]:
        """Products alone, so that all do the same; the last line has embeddings too."""
        scale, zero = 4 + 32 / BLOCK, ZERO_POINTS
        default = rival.DefaultWeightOnlyQuantConfig
        yield Entry(
            name="onnxruntime, RTN (default)",
            bits=scale + zero,
            make=lambda: self._rival(default(block_size=BLOCK, is_symmetric=False, bits=4)),
        )
        yield Entry(
            name="onnxruntime, RTN, symmetric",
            bits=scale,
            make=lambda: self._rival(default(block_size=BLOCK, is_symmetric=True, bits=4)),
        )
        for block in (BLOCK, 2 * BLOCK):
            yield Entry(
                name=f"onnxruntime, HQQ in blocks of {block}",
                bits=4 + 64 / block,
                make=lambda b=block: self._rival(rival.HQQWeightOnlyQuantConfig(block_size=b, bits=4)),
            )
        for algorithm in ("rtn", "hqq", "awq", "gptq"):
            yield Entry(
                name=f"this service, {algorithm}",
                bits=scale + zero,
                make=lambda a=algorithm: self._own(a, False),
            )
        yield Entry(name="this service, gptq, symmetric", bits=scale, make=lambda: self._own("gptq", True))
        yield Entry(
            name="this service, gptq, embeddings too",
            bits=scale + zero,
            make=lambda: self._own("gptq", False, ()),
        )
        yield from _onnxsim(self)

    def measure(self, entry: Entry) -> Measured:
        self.reports = []
        begin = time.process_time()
        made = entry.make()
        seconds = time.process_time() - begin
        session = _session(made)
        found = [
            dict(zip(("hidden", "sentence"), session.run(None, feed)[:2], strict=True))
            for feed in self.held_out
        ]
        signal = noise = 0.0
        for before, after in zip(self.answers, found, strict=True):
            added = energy(before["hidden_states"], after["hidden"])
            signal, noise = signal + added[0], noise + added[1]
        cosines = [
            float(np.sum(before["sentence"] * after["sentence"]))
            for before, after in zip(self.answers, found, strict=True)
        ]
        layers = self._errors(made)
        return Measured(
            name=entry.name,
            bits=entry.bits,
            seconds=seconds,
            phases=_phases(self.reports),
            size_bytes=len(made.SerializeToString()),
            error=self._total(layers),
            layers={name: float(np.sqrt(noise / signal)) for name, (noise, signal) in layers.items()},
            sqnr_db=ratio_db(signal, noise),
            cosine=float(np.mean(cosines)),
            least_cosine=float(np.min(cosines)),
            speed=_speed(_session(self.model), session, self.held_out),
        )

    def _errors(self, made: onnx.ModelProto) -> dict[str, tuple[float, float]]:
        """Noise and signal of every product's outputs, with the weight that the made model turns out to have."""
        found = {}
        for output, (given, weight) in self.products.items():
            error = weight - effective_weight(made, given, output, weight.shape[0])
            moments = self.moments[given]
            found[output] = (
                float(np.sum(error * (moments @ error))),
                float(np.sum(weight * (moments @ weight))),
            )
        return found

    @staticmethod
    def _total(layers: Mapping[str, tuple[float, float]]) -> float:
        """The root of the mean over layers of noise over signal."""
        return float(np.sqrt(np.mean([noise / signal for noise, signal in layers.values()])))

    def _rival(self, config: rival.WeightOnlyQuantConfig) -> onnx.ModelProto:
        worker = rival.MatMulNBitsQuantizer(onnx.load(self.path), algo_config=config)
        worker.process()
        return worker.model.model

    def _own(
        self, algorithm: str, symmetric: bool, include: Sequence[str] = ("op:MatMul",)
    ) -> onnx.ModelProto:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            np.savez(folder / "data.npz", **self.calibration)
            context = StepContext(
                workdir=folder,
                data={Role.CALIBRATION: open_dataset(folder / "data.npz", folder)},
                device="cpu",
                threads=1,
                seed=0,
                report=lambda _, words: self.reports.append((time.process_time(), words.split()[0])),
            )
            step = QuantizeWeights(
                bits=4,
                block_size=BLOCK,
                symmetric=symmetric,
                algorithm=algorithm,
                samples=SAMPLES,
                storage="matmul_nbits",
                layers={"include": list(include)} if include else {},
            )
            outcome = step.apply(load(self.path), context)
            return onnx.load(save(outcome.model, folder / "made.onnx")[0])


def _onnxsim(bench: Bench) -> Iterator[Entry]:
    """Its RTN, and GPTQ on top of that, where it is installed."""
    try:
        import onnxsim
    except ImportError:
        return

    with tempfile.TemporaryDirectory() as folder:
        path = save(upgrade_opset(load(bench.path), ONNXSIM_OPSET), Path(folder) / "upgraded.onnx")[0]
        upgraded = onnx.load(path)

    def nearest() -> onnx.ModelProto:
        return _without_unread(onnxsim.quantize_weight_only_int4(upgraded))

    def gptq() -> onnx.ModelProto:
        feeds = [
            {name: array[start : start + 8] for name, array in bench.calibration.items()}
            for start in range(0, SAMPLES, 8)
        ]
        return onnxsim.apply_gptq(upgraded, nearest(), calibration_data=feeds)

    yield Entry(name="onnxsim, RTN", bits=4 + 32 / BLOCK, make=nearest)
    yield Entry(name="onnxsim, GPTQ", bits=4 + 32 / BLOCK, make=gptq)


def _without_unread(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the floats that onnxsim leaves beside what it made of them."""
    read = {name for node in model.graph.node for name in node.input}
    kept = [item for item in model.graph.initializer if item.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def effective_weight(made: onnx.ModelProto, given: str, output: str, width: int) -> np.ndarray:
    """The matrix that a model multiplies the value `given` by on its way to `output`: its answer to the identity."""
    stored = {item.name: item for item in made.graph.initializer}
    producers = {name: node for node in made.graph.node for name in node.output}
    nodes: list[onnx.NodeProto] = []
    used: dict[str, onnx.TensorProto] = {}
    waiting, seen = [output], {given}
    while waiting:
        name = waiting.pop()
        if name in seen or not name:
            continue
        seen.add(name)
        if name in stored:
            used[name] = stored[name]
            continue
        node = onnx.NodeProto()
        node.CopyFrom(producers[name])
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 0
        nodes.append(node)
        waiting += list(node.input)
    float_in = helper.make_tensor_value_info(given, onnx.TensorProto.FLOAT, [width, width])
    float_out = helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)
    names = [name for node in made.graph.node for name in node.output]
    nodes.sort(key=lambda node: names.index(node.output[0]))
    graph = helper.make_graph(nodes, "product", [float_in], [float_out], list(used.values()))
    alone = helper.make_model(graph, opset_imports=made.opset_import, ir_version=made.ir_version)
    answer: np.ndarray = _session(alone).run(None, {given: np.eye(width, dtype=np.float32)})[0]
    return answer


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _phases(reports: Sequence[tuple[float, str]]) -> dict[str, float]:
    """From each report to the next."""
    spent: dict[str, float] = {}
    for (begin, word), (end, _) in pairwise(reports):
        spent[word] = spent.get(word, 0.0) + end - begin
    return spent


def _speed(
    before: onnxruntime.InferenceSession,
    after: onnxruntime.InferenceSession,
    feeds: Sequence[Mapping[str, np.ndarray]],
) -> float:
    """Median over feeds of the original's time over the made one's, taken in turns."""
    ratios = []
    for feed in feeds[:100]:
        times = []
        for session in (before, after):
            begin = time.perf_counter()
            session.run(None, feed)
            times.append(time.perf_counter() - begin)
        ratios.append(times[0] / times[1])
    return float(np.median(ratios))


def _page(bench: Bench, measured: Sequence[Measured]) -> Iterator[str]:
    names = [
        measured_name
        for measured_name in ("onnx", "onnxruntime", "onnxsim", "torch")
        if _version(measured_name)
    ]
    yield "# int4 weights of a transformer, measured\n"
    yield "Written by `python -m benchmarks.weight_only FOLDER` with"
    yield (
        ", ".join(f"{name} {_version(name)}" for name in names)
        + f", Python {platform.python_version()}, one thread"
    )
    yield "for inference.\n"
    yield f"The model is all-MiniLM-L6-v2 ({bench.path.stat().st_size / 1e6:.1f} MB as float32) with"
    yield f"{len(bench.products)} products, 4 bits in blocks of {BLOCK}. Calibration: {SAMPLES} x {LENGTH} tokens of"
    yield f"Python's language reference. Judged on {HELD_OUT} sentences out of the docstrings of numpy and the standard"
    yield "library, which are not among them.\n"
    columns = ("by", "bits per weight", "output error", "hidden SQNR", "mean cosine", "least cosine", "file")
    columns = (*columns, "seconds", "rounding", "speed")
    yield "| " + " | ".join(columns) + " |"
    yield "|---" * len(columns) + "|"
    for item in measured:
        cells = [
            *(
                item.name,
                f"{item.bits:.3f}",
                f"{item.error:.4f}",
                f"{item.sqnr_db:.1f} dB",
                f"{item.cosine:.4f}",
            ),
            *(
                f"{item.least_cosine:.4f}",
                f"{item.size_bytes / 1e6:.1f} MB",
                f"{item.seconds:.1f}",
                f"{item.phases['rounding'] * SQUARE / bench.weights:.2f}" if item.phases else "",
                f"{item.speed:.2f}x",
            ),
        ]
        yield "| " + " | ".join(cells) + " |"
    yield "\nOutput error: root mean square over products of ||X (W - Q)|| / ||X W||, X being the original's inputs on"
    yield "held-out sentences. Cosine: of the sentence embeddings with the original's. Speed: median of paired"
    yield "inferences of one sentence, against float32. Seconds are of the processor, for all threads together; they"
    yield "include reading and writing, comparing outputs, and gathering the calibration data's inputs for hqq, gptq"
    yield "and awq; rounding is the seconds of that alone, for each"
    times = bench.weights / SQUARE
    yield f"2^20 weights, as many as a matrix of 1024 x 1024 has ({times:.1f} of these). This service's lines"
    yield "are forced into MatMulNBits, which `auto` takes only where it is not slower."
    yield "onnxruntime's HQQ stores zero points as floats; in blocks of 64 it comes to about as many bits as the others"
    yield f"in blocks of 32. onnxsim quantizes from operator set {ONNXSIM_OPSET} on, to which its model was raised.\n"
    yield from _verdict(measured)


def _verdict(measured: Sequence[Measured]) -> Iterator[str]:
    by_name = {item.name: item for item in measured}
    if not {"this service, gptq", "this service, rtn"} <= by_name.keys():
        return
    own, nearest = by_name["this service, gptq"], by_name["this service, rtn"]
    peers = ("onnxruntime, RTN (default)", f"onnxruntime, HQQ in blocks of {BLOCK}")
    for name in (*peers, f"onnxruntime, HQQ in blocks of {2 * BLOCK}", "onnxsim, GPTQ"):
        if name in by_name:
            yield f"- gptq against {name}: {1 - own.error / by_name[name].error:.0%} less output error."
    if "onnxsim, RTN" in by_name and "onnxsim, GPTQ" not in by_name:
        yield "- onnxsim, GPTQ had not ended when it was stopped."
    worse = [name for name, error in own.layers.items() if error > nearest.layers[name]]
    yield "- Products on which gptq is worse than rounding to the nearest on held-out rows:"
    yield f"  {len(worse)} of {len(own.layers)}."


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main()
