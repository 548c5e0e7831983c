"""Runs a model with any mixture of precisions, without building each.

The weights become inputs with the stored ones for defaults, so that one session answers for all mixtures: what differs
from the default is fed. Where the runtime does not take such a model, every mixture is built and opened instead.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from compression import runtime
from compression.errors import CompressionError
from compression.evaluation.inputs import Batch
from compression.evaluation.outputs import Outputs, samples_only
from compression.method import StepContext
from compression.quantization.affine import Array
from compression.quantization.mixed.settings import KEPT, Mixture, Precision
from compression.quantization.mixed.storing import build
from compression.quantization.mixed.units import Unit

_FIRST_WITH_DEFAULTS = 4
"""The IR version from which an initializer need not be, and may be, an input too."""


class Trial:
    """A model under trial; it and its weights stay as they are."""

    def __init__(self, model: ir.Model, units: Sequence[Unit], context: StepContext) -> None:
        self._model, self._units, self._context = model, tuple(units), context
        self._forms = {unit.name: unit.forms for unit in units}
        self._now: dict[str, tuple[Precision, Array]] = {}
        self._session = self._open()

    @property
    def is_lifted(self) -> bool:
        """Whether one session answers for all mixtures."""
        return self._session is not None

    def answers(self, batches: Sequence[Batch], mixture: Mixture) -> list[Outputs]:
        """The outputs for each batch.

        Raises:
            DataMismatch: the model fails on a batch.
            ResultRejected: a mixture that had to be built does not open.
        """
        if self._session is None:
            context = self._context
            built = build(self._model, self._units, mixture)
            session = runtime.open_session(built, device=context.device, threads=context.threads)
            return [_run(session, batch, {}) for batch in batches]
        self._set(mixture)
        fed = {name: array for name, (_, array) in self._now.items()}
        return [_run(self._session, batch, fed) for batch in batches]

    def _set(self, mixture: Mixture) -> None:
        """Works out the values of weights whose precision changes; as many are held as differ from the default."""
        for name in [name for name in self._now if mixture.get(name, KEPT) == KEPT]:
            del self._now[name]
        for name, precision in mixture.items():
            if precision != KEPT and self._now.get(name, (KEPT,))[0] != precision:
                self._now[name] = precision, self._forms[name][precision].values()

    def _open(self) -> Any:
        context = self._context
        try:
            lifted = _lifted(self._model, [unit.name for unit in self._units])
            return runtime.open_session(lifted, device=context.device, threads=context.threads)
        except CompressionError:
            return None


def _run(session: Any, batch: Batch, weights: Mapping[str, np.ndarray]) -> Outputs:
    found = runtime.run(session, {**batch.feeds, **weights})
    return {name: samples_only(output, batch) for name, output in found.items()}


def _lifted(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A copy whose constants of these names are inputs of the main graph, with their values for defaults."""
    copy = model.clone()
    copy.ir_version = max(copy.ir_version or 0, _FIRST_WITH_DEFAULTS)
    wanted = set(names)
    for graph in list(copy.graphs()):
        for name in [name for name in graph.initializers if name in wanted]:
            value = graph.initializers[name]
            if graph is not copy.graph:
                value = _moved(value, graph, copy.graph)
            copy.graph.inputs.append(value)
    return copy


def _moved(value: ir.Value, body: ir.Graph, main: ir.Graph) -> ir.Value:
    """A body's constant as one of the main graph, which bodies see."""
    del body.initializers[value.name or ""]
    main.register_initializer(value)
    return value
