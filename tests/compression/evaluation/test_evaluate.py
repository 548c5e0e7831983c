from contextlib import contextmanager

import numpy as np
import onnx.parser
import pytest

from compression.data import open_dataset
from compression.evaluation.evaluate import evaluate
from compression.measurements import Measurements
from compression.spec import Evaluation, Latency
from tests.compression.evaluation.models import linear, nonzero, only_one_row

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(64, 10)).astype(np.float32)
SAMPLES = RNG.normal(size=(300, 64)).astype(np.float32)
LABELS = (SAMPLES @ WEIGHT).argmax(1)


def dataset(folder, **arrays):
    path = folder / "data.npz"
    np.savez(path, **arrays)
    workdir = folder / "opened"
    workdir.mkdir()
    return open_dataset(path, workdir)


def measured(
    folder, original, compressed, *, data=None, calibration=None, training=None, log=None, **options
):
    @contextmanager
    def timing():
        if log is not None:
            log.append("locked")
        yield
        if log is not None:
            log.append("free")

    workdir = folder / "work"
    workdir.mkdir(exist_ok=True)
    found = evaluate(
        original,
        compressed,
        evaluation=Evaluation(**{"latency": Latency(runs=10), **options}),
        data=data,
        calibration=calibration,
        training=training,
        device="cpu",
        seed=0,
        workdir=workdir,
        timing=timing,
        report=lambda fraction, message: log.append((fraction, message)) if log is not None else None,
    )
    assert Measurements.model_validate_json(found.model_dump_json()) == found
    return found


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Weight-only int8 beside its original, on labelled data."""
    folder = tmp_path_factory.mktemp("labelled")
    original = linear(folder / "original.onnx", WEIGHT)
    compressed = linear(folder / "compressed.onnx", WEIGHT, stored_int8=True)
    log = []
    found = measured(folder, original, compressed, data=dataset(folder, x=SAMPLES, labels=LABELS), log=log)
    return found, log, original, compressed


def test_sizes_and_counts(labelled):
    found, _, original, compressed = labelled
    assert found.original.size_bytes == original.stat().st_size
    assert found.compressed.size_bytes == compressed.stat().st_size
    assert found.size_ratio == pytest.approx(original.stat().st_size / compressed.stat().st_size)
    assert found.original.parameters == 640 and found.original.macs == 640
    assert 0 < found.original.zip_bytes <= found.original.size_bytes


def test_task_metrics_come_from_the_labels(labelled):
    found = labelled[0]
    assert found.data == "evaluation" and found.samples == 300
    assert found.original.metrics["accuracy"].value == 1
    scale = np.abs(WEIGHT).max(0) / 127
    stored = np.round(WEIGHT / scale) * scale
    expected = ((SAMPLES @ stored).argmax(1) == LABELS).mean()
    assert found.compressed.metrics["accuracy"].value == pytest.approx(expected)
    assert set(found.metric_changes) == {"accuracy", "top5", "precision", "recall", "f1"}


def test_fidelity_is_that_of_the_outputs(labelled):
    fidelity = labelled[0].fidelity["logits"]
    scale = np.abs(WEIGHT).max(0) / 127
    x, y = SAMPLES @ WEIGHT, SAMPLES @ (np.round(WEIGHT / scale) * scale)
    assert fidelity.sqnr_db == pytest.approx(10 * np.log10((x**2).sum() / ((x - y) ** 2).sum()), abs=0.05)
    assert fidelity.finite and not fidelity.exact


def test_layers_show_stored_type_and_the_noise_on_effective_weights(labelled):
    (before,) = labelled[0].original.layers
    (after,) = labelled[0].compressed.layers
    assert (before.name, before.dtype, before.weight_sqnr_db) == ("fc", "float32", None)
    assert (after.name, after.dtype) == ("fc", "int8")
    scale = np.abs(WEIGHT).max(0) / 127
    noise = ((WEIGHT - np.round(WEIGHT / scale) * scale) ** 2).sum()
    assert after.weight_sqnr_db == pytest.approx(10 * np.log10((WEIGHT**2).sum() / noise), abs=0.01)


def test_speed_is_measured_under_the_lock_and_only_that(labelled):
    found, log = labelled[0], labelled[1]
    assert [entry for entry in log if isinstance(entry, str)] == ["locked", "free"]
    assert found.original.latency_ms.runs == found.compressed.latency_ms.runs >= 10
    assert found.speedup.low <= found.speedup.value <= found.speedup.high
    assert found.original.throughput_per_s == pytest.approx(1000 / found.original.latency_ms.p50_ms)
    assert found.original.load_ms > 0
    fractions = [entry[0] for entry in log if isinstance(entry, tuple)]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1


def test_memory_is_measured_in_a_process_of_its_own(labelled):
    assert labelled[0].original.peak_memory_bytes > 0
    assert labelled[0].compressed.peak_memory_bytes > 0


def test_verdict_is_set(labelled):
    assert labelled[0].verdict.split(", ")[-1].startswith("accuracy")


@pytest.fixture
def quick(monkeypatch):
    """Leaves out the processes that measure memory: one test of them is enough."""
    monkeypatch.setattr("compression.evaluation.evaluate.peak_memory_bytes", lambda *args, **options: None)


def test_calibration_data_serves_fidelity_and_no_metrics(tmp_path, quick):
    original = linear(tmp_path / "a.onnx", WEIGHT, outputs=("logits", "top"))
    noisy = linear(tmp_path / "b.onnx", WEIGHT, noise=np.float32(0.5), outputs=("logits", "top"))
    found = measured(tmp_path, original, noisy, calibration=dataset(tmp_path, x=SAMPLES, labels=LABELS))
    assert found.data == "calibration" and found.samples == 256
    assert not found.original.metrics and set(found.fidelity) == {"logits", "top"}
    assert found.fidelity["top"].sqnr_db is None and found.fidelity["top"].agreement is not None
    assert any("calibration data" in note for note in found.notes)


def test_training_data_serve_fidelity_and_no_metrics(tmp_path, quick):
    original = linear(tmp_path / "a.onnx", WEIGHT)
    noisy = linear(tmp_path / "b.onnx", WEIGHT, noise=np.float32(0.5))
    found = measured(tmp_path, original, noisy, training=dataset(tmp_path, x=SAMPLES, labels=LABELS))
    assert found.data == "training" and found.samples == 256
    assert not found.original.metrics
    assert any("training data" in note for note in found.notes)


def test_without_data_inputs_are_synthesised_and_it_says_so(tmp_path, quick):
    original = linear(tmp_path / "a.onnx", WEIGHT)
    found = measured(tmp_path, original, original, metrics=("accuracy",))
    assert found.data == "synthetic" and found.samples == 16
    assert found.fidelity["logits"].exact
    assert any("declared shapes" in note and "no measure of its accuracy" in note for note in found.notes)
    assert any("no labels" in note for note in found.notes)
    assert "on synthetic inputs" in found.verdict


def test_an_output_that_suffered_is_told_with_the_layers_that_changed_most(tmp_path, quick):
    original = linear(tmp_path / "a.onnx", WEIGHT)
    noise = 0.2 * np.random.default_rng(1).normal(size=WEIGHT.shape).astype(np.float32)
    found = measured(tmp_path, original, linear(tmp_path / "b.onnx", WEIGHT, noise=noise))
    # Noise of a fifth of the signal is 14 dB, in the one weight as in the one output.
    assert any(note.endswith("Weights changed most in: fc (14 dB).") for note in found.notes)
    faithful = measured(tmp_path, original, linear(tmp_path / "c.onnx", WEIGHT, noise=noise / 100))
    assert not any("changed most" in note for note in faithful.notes)


def test_synthetic_inputs_without_a_batch_axis_count_as_one_sample_each(tmp_path, quick):
    model = nonzero(tmp_path / "a.onnx", -100.0)
    found = measured(tmp_path, model, model)
    assert found.samples == 16 and found.batch_size == 1 and found.fidelity["places"].exact
    assert not any("batch" in note for note in found.notes)


def test_data_that_does_not_fit_is_passed_over_with_a_note(tmp_path, quick):
    original = linear(tmp_path / "a.onnx", WEIGHT)
    found = measured(tmp_path, original, original, data=dataset(tmp_path, x=SAMPLES[:, :5]))
    assert found.data == "synthetic" and any("does not fit" in note for note in found.notes)


def test_labels_that_fit_nothing_leave_fidelity(tmp_path, quick):
    original = linear(tmp_path / "a.onnx", WEIGHT)
    data = dataset(tmp_path, x=SAMPLES, labels=np.full(300, 77))
    found = measured(tmp_path, original, original, data=data)
    assert not found.original.metrics and found.fidelity["logits"].exact
    assert any("Task metrics not measured" in note for note in found.notes)


def test_max_samples_and_batch_size(tmp_path, quick):
    original = linear(tmp_path / "a.onnx", WEIGHT)
    data = dataset(tmp_path, x=SAMPLES, labels=LABELS)
    found = measured(
        tmp_path, original, original, data=data, max_samples=70, latency=Latency(runs=5, batch_size=8)
    )
    assert found.samples == 70 and found.batch_size == 8
    assert found.original.throughput_per_s == pytest.approx(8000 / found.original.latency_ms.p50_ms)


def test_a_fixed_batch_axis_is_filled_and_the_filling_not_counted(tmp_path, quick):
    original = linear(tmp_path / "a.onnx", WEIGHT, batch=16)
    compressed = linear(tmp_path / "b.onnx", WEIGHT, batch=16, stored_int8=True)
    data = dataset(tmp_path, x=SAMPLES, labels=LABELS)
    found = measured(tmp_path, original, compressed, data=data)
    assert found.samples == 300 and found.batch_size == 16
    assert found.original.metrics["accuracy"].value == 1
    assert any("batch of 16" in note for note in found.notes)


def test_outputs_whose_shape_depends_on_values_are_told_apart(tmp_path, quick):
    data = dataset(tmp_path, x=SAMPLES[:, 0])
    found = measured(
        tmp_path, nonzero(tmp_path / "a.onnx", 0.0), nonzero(tmp_path / "b.onnx", 0.5), data=data
    )
    assert found.incomparable == ("places",) and found.fidelity == {}
    assert any("shape depends on values" in note for note in found.notes)
    assert "could not be compared" in found.verdict


def test_sequences_are_not_compared(tmp_path, quick):
    text = """<ir_version: 8, opset_import: ["": 17]>
        agraph (float[N, 4] x) => (float[N, 4] y, seq(float) parts) {
            y = Abs(x)
            parts = SequenceConstruct(x, y)
        }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "a.onnx")
    found = measured(
        tmp_path, tmp_path / "a.onnx", tmp_path / "a.onnx", data=dataset(tmp_path, x=SAMPLES[:, :4])
    )
    assert found.incomparable == ("parts",) and found.fidelity["y"].exact


def test_memory_that_cannot_be_measured_is_null_with_a_note(tmp_path, quick):
    model = linear(tmp_path / "a.onnx", WEIGHT)
    found = measured(tmp_path, model, model)
    assert found.original.peak_memory_bytes is None
    assert any("Peak memory" in note for note in found.notes)


def test_a_model_that_takes_one_sample_only_gets_one_at_a_time(tmp_path, quick):
    model = only_one_row(tmp_path / "a.onnx")
    found = measured(tmp_path, model, model, data=dataset(tmp_path, x=SAMPLES[:20, :4]))
    assert found.samples == 20 and found.fidelity["y"].exact
    assert any("one sample at a time" in note for note in found.notes)


def test_external_data_counts(tmp_path, quick):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    original = linear(tmp_path / "one" / "m.onnx", np.tile(WEIGHT, (1, 200)), external_data="m.onnx.data")
    compressed = linear(tmp_path / "two" / "m.onnx", np.tile(WEIGHT, (1, 200)), stored_int8=True)
    found = measured(tmp_path, original, compressed)
    assert found.original.size_bytes > 512_000
    assert 3 < found.size_ratio < 4
