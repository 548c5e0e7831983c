"""METHODS: every compression method by name, discovered from the files of `compression/methods/`."""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType

from compression import methods
from compression.method import Method


def _discover() -> Mapping[str, type[Method]]:
    found: dict[str, type[Method]] = {}
    for info in pkgutil.iter_modules(methods.__path__):
        module = importlib.import_module(f"{methods.__name__}.{info.name}")
        for _, item in inspect.getmembers(module, inspect.isclass):
            own = item.__module__ == module.__name__
            if own and issubclass(item, Method) and not inspect.isabstract(item):
                found[item.model_fields["method"].get_default()] = item
    return MappingProxyType(dict(sorted(found.items())))


METHODS: Mapping[str, type[Method]] = _discover()
