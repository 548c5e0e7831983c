"""A step that takes a while and saves how far it is."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from compression.method import StepContext, StepOutcome
from compression.methods.optimize_graph import OptimizeGraph

ROUNDS = 120
ROUND_S = 0.05


def walk(self: OptimizeGraph, model: ir.Model, context: StepContext) -> StepOutcome:
    """Moves the weights at random, round by round: the result shows any round left out or done twice."""
    generator = np.random.default_rng(context.seed)
    weights = {name: value.const_value.numpy().copy() for name, value in model.graph.initializers.items()}
    began_at = _restore(context.checkpoints.load(), weights, generator)
    for done in range(began_at, ROUNDS):
        for name, weight in weights.items():
            weights[name] = weight + generator.normal(0, 0.01, weight.shape).astype(weight.dtype)
        time.sleep(ROUND_S)
        context.report(done / ROUNDS, "walking")
        if context.checkpoints.due():
            context.checkpoints.save(lambda path, done=done: _save(path, done + 1, weights, generator))
    for name, value in model.graph.initializers.items():
        value.const_value = ir.tensor(weights[name], name=name)
    return StepOutcome(model=model, layers=(), details={"began_at": began_at})


def _save(path: Path, done: int, weights: dict[str, Any], generator: np.random.Generator) -> None:
    state = json.dumps({"done": done, "generator": generator.bit_generator.state})
    with path.open("wb") as file:
        np.savez(file, **weights, state=np.array(state))


def _restore(path: Path | None, weights: dict[str, Any], generator: np.random.Generator) -> int:
    if path is None:
        return 0
    with np.load(path) as saved:
        weights.update({name: saved[name] for name in weights})
        state = json.loads(str(saved["state"]))
    generator.bit_generator.state = state["generator"]
    return int(state["done"])
