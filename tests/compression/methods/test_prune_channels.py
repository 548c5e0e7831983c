"""prune_channels on the digits' networks and on the zoo."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from pydantic import ValidationError

from compression.channel_pruning.budgets import macs, weight_bytes
from compression.channel_pruning.proof import cut_and_prove
from compression.errors import NotApplicable, ResultRejected
from compression.graph import interface, load, save, summarise
from compression.graph.channels import find_groups
from compression.method import StepContext, StepOutcome
from compression.methods.finetune import Finetune
from compression.methods.prune_channels import PruneChannels
from compression.runtime import open_session, run
from tests.compression import zoo
from tests.compression.distillation.networks import digits
from tests.compression.training.learning import accuracy, context, digits_data, mlp

CRITERIA = ["l1", "l2", "geometric_median", "taylor", "entropy", "stability", "random"]


def pruned(folder: Path, model: ir.Model | None = None, **options: Any) -> StepOutcome:
    step = PruneChannels(
        **({"sparsity": 0.5} if not options.keys() & {"threshold", "budget"} else {}), **options
    )
    model = model or mlp(folder / "model")
    return step.apply(model, context(folder, digits_data(folder / "data", 200)))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_cuts_and_the_cut_is_proven(tmp_path: Path, criterion: str) -> None:
    outcome = pruned(tmp_path, criterion=criterion)
    (file,) = save(outcome.model, tmp_path / "cut.onnx")
    assert list(load(file).graph.initializers["first.w"].shape) == [12, 64]
    assert outcome.details["proof"]["error"] <= 1e-5
    assert any(criterion in note for note in outcome.notes)
    assert run(open_session(file, device="cpu", threads=1), {"image": np.zeros((3, 64), np.float32)})
    first = next(layer for layer in outcome.layers if layer.layer == "first")
    assert first.changed
    assert first.numbers == {"units_before": 24.0, "units_after": 12.0}
    assert "12 of 24" in first.note


def test_recovers_by_finetuning(tmp_path: Path) -> None:
    pixels, labels = digits()
    data = digits_data(tmp_path / "d", 1200)
    model = mlp(tmp_path / "model")
    Finetune(epochs=8, learning_rate=5e-3).apply(model, context(tmp_path / "a", data))
    before = accuracy(model, pixels[1200:], labels[1200:])
    PruneChannels(sparsity=0.5, criterion="taylor").apply(model, context(tmp_path / "b", data))
    cut = accuracy(model, pixels[1200:], labels[1200:])
    Finetune(epochs=8, learning_rate=5e-3).apply(model, context(tmp_path / "c", data))
    after = accuracy(model, pixels[1200:], labels[1200:])
    assert before > 0.93
    assert after > max(cut, before - 0.03)


@pytest.mark.parametrize(("budget", "measure"), [({"macs": 0.4}, macs), ({"size": 0.4}, weight_bytes)])
def test_a_budget_is_met_with_as_little_as_it_takes(tmp_path: Path, budget: Any, measure: Any) -> None:
    model = mlp(tmp_path / "model", hidden=128)
    whole = measure(model)
    outcome = pruned(tmp_path, model, budget=budget, round_to=1)
    assert 0.38 < measure(outcome.model) / whole <= 0.4
    assert any("allowed" in note for note in outcome.notes)


def test_a_budget_of_latency_is_measured(tmp_path: Path) -> None:
    outcome = pruned(tmp_path, mlp(tmp_path / "model", hidden=4096), budget={"latency": 0.8})
    assert weight_bytes(outcome.model) < 0.8 * weight_bytes(mlp(tmp_path / "whole", hidden=4096))


def test_what_cannot_be_met_is_refused_with_what_can(tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match=r"\d% of the macs is the least that can be left"):
        pruned(tmp_path, budget={"macs": 0.01})
    with pytest.raises(NotApplicable, match="the lowest score is"):
        pruned(tmp_path / "t", threshold=1e-6)


def test_exactly_one_target() -> None:
    for given in ({}, {"sparsity": 0.5, "threshold": 1.0}, {"budget": {}}):
        with pytest.raises(ValidationError, match="give"):
            PruneChannels(**given)


def test_layers_that_are_not_selected_stay_and_so_does_what_depends_on_them(tmp_path: Path) -> None:
    for name, other in (("last", "first"), ("first", "last")):
        with pytest.raises(NotApplicable, match=f"'{other}' would shrink with it and is not selected"):
            pruned(tmp_path / name, layers={"include": [name]})


def test_outputs_of_the_model_stay_and_are_told_of(tmp_path: Path) -> None:
    outcome = pruned(tmp_path)
    last = next(layer for layer in outcome.layers if layer.layer == "last")
    assert "its outputs stay" in last.note


def test_without_data_made_up_inputs_prove_it(tmp_path: Path) -> None:
    ctx = StepContext(workdir=tmp_path, data={}, device="cpu", threads=1, seed=0, report=lambda *_: None)
    outcome = PruneChannels(sparsity=0.5).apply(mlp(tmp_path / "model"), ctx)
    assert any("made-up inputs" in note for note in outcome.notes)


def test_preflight_asks_for_data_only_where_it_is_looked_at(tmp_path: Path) -> None:
    summary = summarise(mlp(tmp_path / "model"), size_bytes=10_000)
    assert not PruneChannels(sparsity=0.5).forecast(summary, {}).problems
    (problem,) = PruneChannels(sparsity=0.5, criterion="taylor").forecast(summary, {}).problems
    assert problem.code == "data_missing"
    after = PruneChannels(sparsity=0.5).forecast(summary, {}).model_after
    assert after.parameters < 0.6 * summary.parameters


def test_a_cut_that_is_not_the_original_is_rejected(tmp_path: Path) -> None:
    """The proof has teeth: against another model's weights it fails."""
    model, other = mlp(tmp_path / "a"), mlp(tmp_path / "b")
    weight = other.graph.initializers["last.w"]
    weight.const_value = ir.tensor(weight.const_value.numpy() * 1.01, name=weight.name)
    (group,) = find_groups(model).groups
    feeds = [{"image": np.ones((1, 64), np.float32)}]
    with pytest.raises(ResultRejected, match="is allowed"):
        cut_and_prove(other, model, {group.id: (0, 1)}, feeds, widths=False)


def zoo_cut(name: str, folder: Path, **options: Any) -> tuple[StepOutcome, ir.Model]:
    (folder / "model.onnx").write_bytes(zoo.exported(name))
    model = load(folder / "model.onnx")
    data = {
        "workdir": folder,
        "data": {},
        "device": "cpu",
        "threads": 1,
        "seed": 0,
        "report": lambda *_: None,
    }
    return PruneChannels(sparsity=0.5, **options).apply(model, StepContext(**data)), model


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "bert"])
def test_architectures_lose_half_of_their_units(name: str, tmp_path: Path) -> None:
    check_architecture(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(zoo.ENTRIES) - {"resnet", "mobilenet", "bert"}))
def test_further_architectures_lose_half_of_their_units(name: str, tmp_path: Path) -> None:
    check_architecture(name, tmp_path)


def check_architecture(name: str, folder: Path) -> None:
    outcome, _ = zoo_cut(name, folder, round_to=1)
    (file,) = save(outcome.model, folder / "cut.onnx")
    assert file.stat().st_size < (folder / "model.onnx").stat().st_size
    before, after = interface(load(folder / "model.onnx")), interface(load(file))
    assert before == after
    counts = outcome.details["weight_bytes"]
    assert counts["after"] < 0.8 * counts["before"]
    run(open_session(file, device="cpu", threads=1), zoo.feeds(name))
