"""Equal keys mean equal results: everything that matters moves the key, nothing else does."""

from typing import Any

import pytest

from compression.cache_key import first_key, step_key
from compression.method import Role
from compression.methods.prune_magnitude import PruneMagnitude
from compression.spec import CompressionSpec


def spec(sparsity: float = 0.5, **other: Any) -> CompressionSpec:
    return CompressionSpec.model_validate(
        {
            "steps": [{"method": "prune_magnitude", "sparsity": sparsity}, {"method": "optimize_graph"}],
            **other,
        }
    )


def key(previous: str = "a", of: CompressionSpec | None = None, index: int = 0, **other: Any) -> str:
    return step_key(previous, of or spec(), index, other.get("data", {}), other.get("device", "cpu"))


def test_same_work_same_key() -> None:
    assert key() == key()
    assert len(key()) == 64
    assert key(of=spec(evaluation={"max_samples": 5})) == key()
    assert key(data={Role.TRAINING: "f" * 64}) == key()


def test_defaults_written_out_are_the_same_step() -> None:
    step = {"method": "prune_magnitude", "sparsity": 0.5, "scope": "global", "layers": {"include": ["*"]}}
    assert key(of=CompressionSpec.model_validate({"steps": [step]})) == key()


def test_what_matters_moves_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    base = key()
    others = [key("b"), key(of=spec(0.6)), key(index=1), key(of=spec(seed=1)), key(device="cuda")]
    monkeypatch.setattr(PruneMagnitude, "version", 2)
    others.append(key())
    monkeypatch.setattr(PruneMagnitude, "uses", frozenset({Role.TRAINING}))
    others += [key(data={Role.TRAINING: "f" * 64}), key(data={Role.TRAINING: "e" * 64})]
    assert len({base, *others}) == 9


def test_other_model_other_key() -> None:
    assert first_key("a" * 64) != first_key("b" * 64)
