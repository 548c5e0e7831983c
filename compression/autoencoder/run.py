"""Trains a sparse autoencoder, writes it as two ONNX files, and measures these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compression.autoencoder.codec import (
    Activation,
    Codec,
    decoder_graph,
    encoder_graph,
    fresh_codec,
    training_graph,
)
from compression.autoencoder.learning import BoundedAtoms, Reconstruction, as_dataset, standardise, trained
from compression.autoencoder.measuring import Measured, measure
from compression.autoencoder.samples import Samples, collect
from compression.autoencoder.source import open_stream
from compression.autoencoder.wish import Sparsity, Wish
from compression.distillation.features import Feature
from compression.errors import NotApplicable
from compression.graph import save
from compression.graph.trainable import TrainableGraph
from compression.method import LayerOutcome, StepContext, StepOutcome
from compression.training.batches import Batches
from compression.training.keeping import Keeper
from compression.training.loop import Plan, train
from compression.training.record import TrainingRecord
from compression.training.settings import LearningMethod

if TYPE_CHECKING:
    import onnx_ir as ir

ACTIVATIONS: Mapping[Sparsity, Activation] = {"topk": "identity", "l1": "relu", "kl": "sigmoid"}
MOST_WEIGHTS = 1 << 28
"""Of encoder or decoder: one GiB, of which training holds about seven."""
COLLECTED, LEARNED = 0.2, 0.95
"""Where in the step's progress the samples are there, and the training is done."""


def learn_code(
    model: "ir.Model", wish: Wish, settings: LearningMethod, chosen: Sequence[str], context: StepContext
) -> StepOutcome:
    """The whole step; the model comes out as it came.

    Raises:
        CompressionError: there is nothing to learn from, or the sizes do not fit.
    """
    stream, name, feature = open_stream(model, wish, chosen, context)
    samples = collect(
        stream,
        wish.unit,
        wish.held_out,
        workdir=context.workdir,
        seed=context.seed,
        report=lambda done: context.report(COLLECTED * done, "gathering what to learn from"),
    )
    codec = _fresh(samples, wish, context.seed)
    mean, scale = standardise(samples.rows)
    codec, record = _train(codec, samples, wish, settings, context)
    files = _write(codec.standardised(mean, scale), samples, name, context.workdir)
    context.report(LEARNED, "measuring the encoder and the decoder")
    measured = measure(
        files["encoder.onnx"],
        files["decoder.onnx"],
        samples.held_out,
        samples.layout.axis,
        sigmoid=wish.sparsity == "kl",
        context=context,
    )
    return _outcome(model, _Told(name, feature, samples, codec, record, measured), files)


def _fresh(samples: Samples, wish: Wish, seed: int) -> Codec:
    features = samples.layout.features
    hidden = wish.units(features)
    kept = wish.kept(hidden)
    if features < 2 or features * hidden > MOST_WEIGHTS:
        raise NotApplicable(
            f"rows of {features:,} features and codes of {hidden:,} units are no sizes for an autoencoder here",
            where="hidden",
            hint="take positions as rows (unit: position), a smaller code, or another layer",
        )
    if kept is not None and kept > hidden:
        raise NotApplicable(
            f"{kept} active units of {hidden} are not there",
            where="active",
            hint=f"give active up to {hidden}, or more hidden units",
        )
    return fresh_codec(
        features, hidden, tied=wish.tied, activation=ACTIVATIONS[wish.sparsity], kept=kept, seed=seed
    )


def _train(
    fresh: Codec, samples: Samples, wish: Wish, settings: LearningMethod, context: StepContext
) -> tuple[Codec, TrainingRecord]:
    """The codec for standardised rows."""
    dataset, rows = as_dataset(samples.rows)
    batches = Batches(
        dataset,
        [rows],
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        validation=settings.validation,
        seed=context.seed,
    )
    view = TrainableGraph(training_graph(fresh), device=context.device)
    record = train(
        view,
        Reconstruction(wish),
        batches,
        settings,
        replace(
            context,
            report=lambda done, said: context.report(COLLECTED + (LEARNED - COLLECTED) * done, said),
        ),
        constraints=(BoundedAtoms(),) if wish.sparsity == "l1" else (),
        plan=Plan(epochs=settings.epochs, count_start=False),
        keeper=Keeper(context.checkpoints),
    )
    return trained(view, fresh), record


def _write(codec: Codec, samples: Samples, name: str, folder: Path) -> dict[str, Path]:
    graphs = {
        "encoder.onnx": encoder_graph(codec, samples.layout, name),
        "decoder.onnx": decoder_graph(codec, samples.layout, name),
    }
    return {file: save(graph, folder / file)[0] for file, graph in graphs.items()}


@dataclass(frozen=True)
class _Told:
    name: str
    feature: Feature | None
    samples: Samples
    codec: Codec
    record: TrainingRecord
    measured: Measured


def _outcome(model: "ir.Model", told: _Told, files: Mapping[str, Path]) -> StepOutcome:
    figures = told.measured.document()
    layers = (
        (
            LayerOutcome(
                layer=told.feature.layer,
                changed=False,
                note="its activations were encoded; the layer itself is as it was",
                numbers=figures,
            ),
        )
        if told.feature is not None
        else ()
    )
    return StepOutcome(
        model=model, layers=layers, notes=tuple(_notes(told)), details=_details(told), files=files
    )


def _notes(told: _Told) -> list[str]:
    found, layout = told.measured, told.samples.layout
    hidden = told.codec.hidden
    where = f"what {told.feature.layer!r} gives" if told.feature else f"the array {told.name!r}"
    rows = (
        "whole samples"
        if layout.axis is None or layout.positions == 1
        else f"{told.samples.drawn} positions each"
    )
    return [
        "the model passes through unchanged; the results are encoder.onnx and decoder.onnx, which take float32",
        f"learned a code of {hidden:,} units for {layout.features:,} features of {where}, from "
        f"{len(told.samples.rows):,} rows ({rows})",
        f"on {found.samples:,} held-out samples: relative squared error {found.relative_mse:.4f}, explained variance "
        f"{found.explained_variance:.4f}",
        f"of the units {found.active_share:.2%} are active ({found.active_share * hidden:.1f} of {hidden:,}), and "
        f"{round(found.dead_share * hidden):,} never are",
        told.record.words(),
    ]


def _details(told: _Told) -> dict[str, Any]:
    hidden = told.codec.hidden
    return {
        "value": told.name,
        "features": told.samples.layout.features,
        "hidden": hidden,
        "kept": told.codec.kept,
        "rows": len(told.samples.rows),
        "positions_drawn": told.samples.drawn,
        "measured": {
            **told.measured.document(),
            "active_units": told.measured.active_share * hidden,
            "dead_units": round(told.measured.dead_share * hidden),
        },
        "training": told.record.as_details(),
    }
