"""The key of a step's result: equal keys mean that the same bytes would come out again."""

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType

from compression.method import Device, Role
from compression.spec import CompressionSpec

FORMAT = 3
"""Raise it when loading, saving or checking a model, or which layers fit, changes what every step makes."""


def first_key(model_sha256: str) -> str:
    """The key before any step: the uploaded model itself."""
    return _digest({"format": FORMAT, "model": model_sha256})


def step_key(
    previous_key: str,
    spec: CompressionSpec,
    index: int,
    data_sha256: Mapping[Role, str],
    device: Device,
    *,
    models_sha256: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The key after step `index`, as 64 hexadecimal digits.

    It covers the key before the step, the step's parameters with their defaults and its method's version, the
    datasets that the step reads (not those it ignores), the device and the seed. Other models count by their
    hashes, which `models_sha256` has by id: uploaded again, they are the same.
    """
    step = spec.steps[index]
    roles = sorted((step.needs | step.uses) & data_sha256.keys())
    hashes = {id: models_sha256[id] for id in step.other_models()}
    return _digest(
        {
            "previous": previous_key,
            "step": {name: _hashed(value, hashes) for name, value in spec.step_document(index).items()},
            "version": type(step).version,
            "data": {role.value: data_sha256[role] for role in roles},
            "models": list(hashes.values()),
            "device": device,
            "seed": spec.seed,
        }
    )


def _hashed(value: object, hashes: Mapping[str, str]) -> object:
    return hashes.get(value, value) if isinstance(value, str) else value


def _digest(document: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
