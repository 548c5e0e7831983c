"""train_sparse_autoencoder on planted dictionaries, and on what layers of small models give."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from pydantic import ValidationError

from compression.autoencoder.learning import standardise
from compression.checkpoints import NoCheckpoints
from compression.data import Dataset
from compression.errors import NotApplicable
from compression.graph import load, summarise
from compression.graph.trainable import TrainableGraph
from compression.method import Role, StepOutcome
from compression.methods.train_sparse_autoencoder import TrainSparseAutoencoder
from tests.compression.models import images, small_model
from tests.compression.training.learning import Breaking, BrokenOff, arrays, context, dataset, mlp, same

ATOMS, FEATURES, ACTIVE = 24, 16, 2
RNG = np.random.default_rng(5)


def planted(samples: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are sums of two of 24 atoms of length one in 16 dimensions, with positive coefficients, and noise."""
    atoms = RNG.normal(size=(ATOMS, FEATURES))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    codes = np.zeros((samples, ATOMS))
    for row in codes:
        row[RNG.choice(ATOMS, ACTIVE, replace=False)] = RNG.uniform(0.5, 1.5, ACTIVE)
    rows = codes @ atoms + 0.01 * RNG.normal(size=(samples, FEATURES))
    return rows.astype(np.float32), atoms


def learned(folder: Path, model: ir.Model, data: Dataset, **options: Any) -> StepOutcome:
    given = {name: options.pop(name) for name in ("checkpoints", "seed", "report") if name in options}
    return TrainSparseAutoencoder(**options).apply(model, context(folder, data, **given))


def planted_data(folder: Path, rows: np.ndarray) -> Dataset:
    return dataset(folder / "data", image=np.zeros((len(rows), 64), np.float32), rows=rows)


def opened(outcome: StepOutcome) -> tuple[ort.InferenceSession, ort.InferenceSession]:
    encoder, decoder = (
        ort.InferenceSession(outcome.files[name], providers=["CPUExecutionProvider"])
        for name in ("encoder.onnx", "decoder.onnx")
    )
    return encoder, decoder


def codes_and_back(outcome: StepOutcome, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    encoder, decoder = opened(outcome)
    (code,) = encoder.run(None, {encoder.get_inputs()[0].name: samples})
    (back,) = decoder.run(None, {"code": code})
    return code, back


def recovered(atoms: np.ndarray, found: np.ndarray) -> float:
    """The mean over planted atoms of the largest cosine with a found one."""
    found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return float(np.abs(atoms @ found.T).max(axis=1).mean())


def pca(rows: np.ndarray, components: int) -> tuple[np.ndarray, float]:
    """Components, and the squared error that so many leave relative to the variance."""
    centred = rows - rows.mean(axis=0)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    return directions[:components], float((values[components:] ** 2).sum() / (values**2).sum())


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({"sparsity": "topk", "active": ACTIVE}, 0.9),
        ({"sparsity": "l1", "weight": 1.0}, 0.9),
    ],
)
def test_a_planted_dictionary_is_found(tmp_path: Path, options: dict[str, Any], least: float) -> None:
    rows, atoms = planted()
    options = {"hidden": 32, "epochs": 30, "learning_rate": 0.01, "batch_size": 128, **options}
    outcome = learned(tmp_path, mlp(tmp_path / "m"), planted_data(tmp_path, rows), array="rows", **options)
    _, decoder = opened(outcome)
    (offset,) = decoder.run(None, {"code": np.zeros((1, 32), np.float32)})
    (found,) = decoder.run(None, {"code": np.eye(32, dtype=np.float32)})
    assert recovered(atoms, found - offset) > least > recovered(atoms, pca(rows, FEATURES)[0]) + 0.2
    measured = outcome.details["measured"]
    if options["sparsity"] == "topk":
        assert measured["active_units"] == pytest.approx(ACTIVE, abs=1e-3)
        assert 1 - measured["explained_variance"] < pca(rows, ACTIVE)[1] / 5
    else:
        assert 1 < measured["active_units"] < 8


def test_kl_holds_units_to_their_target(tmp_path: Path) -> None:
    rows, _ = planted(2000)
    options = {"sparsity": "kl", "target": 0.1, "weight": 20.0, "hidden": 20, "epochs": 10}
    options |= {"learning_rate": 0.02, "batch_size": 32}
    outcome = learned(tmp_path, mlp(tmp_path / "m"), planted_data(tmp_path, rows), array="rows", **options)
    code, _ = codes_and_back(outcome, rows)
    assert code.mean() == pytest.approx(0.1, abs=0.03)
    assert outcome.details["measured"]["mean_activation"] == pytest.approx(0.1, abs=0.03)


def test_exactly_k_are_active_and_the_figures_are_the_files_own(tmp_path: Path) -> None:
    model = load(small_model(tmp_path / "m.onnx"))
    samples = images(80)
    data = dataset(tmp_path / "d", image=samples, labels=np.zeros(80, np.int64))
    before = arrays(model)
    outcome = learned(tmp_path, model, data, layer="conv1", hidden=12, active=3, epochs=2)
    assert same(arrays(outcome.model), before)
    assert not any(layer.changed for layer in outcome.layers)
    assert "passes through unchanged" in outcome.notes[0]
    maps = activations(tmp_path / "m.onnx", "r1", samples)
    code, back = codes_and_back(outcome, maps)
    assert code.shape == (80, 8, 8, 12) and back.shape == maps.shape
    assert (np.count_nonzero(code, axis=-1) == 3).mean() > 0.999
    held = held_out(samples, maps, context_seed=3)
    code, back = codes_and_back(outcome, held)
    measured = outcome.details["measured"]
    assert measured["relative_mse"] == pytest.approx(((held - back) ** 2).sum() / (held**2).sum(), rel=1e-4)
    means = held.mean(axis=(0, 2, 3), keepdims=True)
    spread = ((held - means) ** 2).sum()
    assert measured["explained_variance"] == pytest.approx(1 - ((held - back) ** 2).sum() / spread, rel=1e-3)
    assert measured["active_share"] == pytest.approx((code != 0).mean(), abs=1e-6)
    assert measured["dead_units"] == int((~(code != 0).reshape(-1, 12).any(axis=0)).sum())


def activations(path: Path, value: str, samples: np.ndarray) -> np.ndarray:
    import onnx

    proto = onnx.load(path)
    proto.graph.output.append(onnx.helper.make_empty_tensor_value_info(value))
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([value], {"image": samples})[0]


def held_out(samples: np.ndarray, maps: np.ndarray, *, context_seed: int) -> np.ndarray:
    """As `collect` draws them."""
    order = np.random.default_rng(context_seed).permutation(len(samples))
    return maps[np.sort(order[: round(0.1 * len(samples))])]


def test_the_files_agree_with_the_torch_graph(tmp_path: Path) -> None:
    """For any number of rows, and given the trained weights again."""
    import torch

    rows, _ = planted(600)
    outcome = learned(
        tmp_path,
        mlp(tmp_path / "m"),
        planted_data(tmp_path, rows),
        array="rows",
        hidden=20,
        active=4,
        epochs=2,
    )
    encoder, decoder = (load(outcome.files[name]) for name in ("encoder.onnx", "decoder.onnx"))
    for count in (1, 7):
        code, back = codes_and_back(outcome, rows[:count])
        with torch.no_grad():
            found = TrainableGraph(encoder)({"rows": torch.from_numpy(rows[:count])})["code"]
            again = TrainableGraph(decoder)({"code": found})["rows"]
        np.testing.assert_allclose(found.numpy(), code, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(again.numpy(), back, rtol=1e-4, atol=1e-5)


def test_without_a_name_the_last_layer_inside_is_taken(tmp_path: Path) -> None:
    model = load(small_model(tmp_path / "m.onnx"))
    data = dataset(tmp_path / "d", image=images(40))
    outcome = learned(tmp_path, model, data, epochs=1, unit="sample")
    assert [layer.layer for layer in outcome.layers] == ["conv2"]
    assert (outcome.details["value"], outcome.details["features"]) == ("r2", 8 * 64)


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    rows, _ = planted(400)
    found = [
        learned(
            tmp_path / name,
            mlp(tmp_path / "m"),
            planted_data(tmp_path / name, rows),
            array="rows",
            epochs=2,
            seed=seed,
        )
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    one, two, other = ([path.read_bytes() for path in outcome.files.values()] for outcome in found)
    assert one == two
    assert one != other


@pytest.mark.parametrize("options", [{"sparsity": "topk"}, {"sparsity": "l1", "tied": True}])
def test_resumed_runs_give_the_same_files(tmp_path: Path, options: dict[str, Any]) -> None:
    rows, _ = planted(400)

    def work(folder: Path, checkpoints: Breaking | NoCheckpoints) -> list[bytes]:
        data = planted_data(folder, rows)
        outcome = learned(
            folder,
            mlp(folder / "m"),
            data,
            array="rows",
            epochs=6,
            batch_size=32,
            checkpoints=checkpoints,
            **options,
        )
        return [path.read_bytes() for path in outcome.files.values()]

    undisturbed = work(tmp_path / "undisturbed", NoCheckpoints())
    for look in (9, 30):
        with pytest.raises(BrokenOff):
            work(tmp_path / str(look), Breaking(tmp_path, dies_at=look))
    assert work(tmp_path / "last", Breaking(tmp_path)) == undisturbed


def test_rows_are_standardised_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compression.autoencoder.learning.PIECE", 50)
    rows = (RNG.normal(size=(37, 6)) * 3 + np.arange(6)).astype(np.float32)
    expected_mean = rows.astype(np.float64).mean(axis=0)
    expected = rows - expected_mean
    scale = np.sqrt((expected**2).mean())
    work = rows.copy()
    mean, found = standardise(work)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-6)
    assert found == pytest.approx(scale, rel=1e-6)
    np.testing.assert_allclose(work, expected / scale, rtol=1e-4, atol=1e-6)


def test_progress_rises(tmp_path: Path) -> None:
    heard: list[float] = []
    rows, _ = planted(300)
    data = planted_data(tmp_path, rows)
    learned(
        tmp_path, mlp(tmp_path / "m"), data, array="rows", epochs=2, report=lambda done, _: heard.append(done)
    )
    assert heard == sorted(heard) and 0 < heard[0] < 0.3 and heard[-1] <= 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"array": "x", "layer": "y"}, "give array, or a layer"),
        ({"array": "x", "layers": {"include": ["y"]}}, "give array, or a layer"),
        ({"sparsity": "kl", "active": 3}, "active belongs to the sparsity topk"),
        ({"hidden": 4, "active": 5}, "5 active units of 4"),
    ],
)
def test_wishes_that_contradict_themselves_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        TrainSparseAutoencoder(**options)


def test_preflight_names_what_is_not_there(tmp_path: Path) -> None:
    model = load(small_model(tmp_path / "m.onnx"))
    summary = summarise(model, size_bytes=10_000)
    data = dataset(tmp_path / "d", image=images(20))
    told = {Role.TRAINING: data.summary}
    for options, text, hint in (
        ({"array": "nothing"}, "no array 'nothing'", "image"),
        ({"layer": "conv9"}, "'conv9' is not in the model", "conv1"),
        ({"layer": "conv1", "layers": {"exclude": ["conv1"]}}, "'conv1' is not selected", "conv2"),
    ):
        step = TrainSparseAutoencoder(**options)
        (problem,) = step.forecast(summary, told).problems
        assert text in problem.message and hint in (problem.hint or "")
    for options in ({"array": "image"}, {"layer": "conv1"}, {}):
        forecast = TrainSparseAutoencoder(**options).forecast(summary, told)
        assert forecast.problems == () and forecast.model_after == summary
    assert [p.code for p in TrainSparseAutoencoder(array="image").forecast(summary, {}).problems] == [
        "data_missing"
    ]
    with pytest.raises(NotApplicable, match="'fc' gives no float values inside the model"):
        learned(tmp_path, model, data, layer="fc")


def test_sizes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    data = dataset(tmp_path / "d", image=images(20), one=np.zeros((20, 1), np.float32))
    model = load(small_model(tmp_path / "m.onnx"))
    with pytest.raises(NotApplicable, match="60 active units of 16"):
        learned(tmp_path, model, data, layer="conv1", active=60)
    with pytest.raises(NotApplicable, match="rows of 1 features"):
        learned(tmp_path / "one", model, data, array="one")


def test_a_job_gives_both_files_beside_the_same_model(tmp_path: Path) -> None:
    """And a later step works on the model as it was."""
    from tests.compression.models import save_dataset
    from tests.compression.test_pipeline import execute, job

    steps = [
        {"method": "train_sparse_autoencoder", "layer": "conv2", "hidden": 8, "active": 2, "epochs": 1},
        {"method": "prune_magnitude", "sparsity": 0.5},
    ]
    training = save_dataset(tmp_path / "data")
    result, _ = execute(job(tmp_path, steps, data={Role.TRAINING: training}))
    made = {file.name: tmp_path / "job" / file.path for file in result.outputs}
    assert {"encoder.onnx", "decoder.onnx", "model.onnx"} <= set(made)
    session = ort.InferenceSession(made["encoder.onnx"], providers=["CPUExecutionProvider"])
    assert session.run(None, {"r2": np.ones((3, 8, 8, 8), np.float32)})[0].shape == (3, 8, 8, 8)
