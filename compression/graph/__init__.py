"""ONNX in and out: load, check, look at, change and save models."""

from compression.graph.cleaning import clean
from compression.graph.interfaces import check_same_interface, interface
from compression.graph.layer import Layer, layers, replace_weight, shared_weights
from compression.graph.loading import external_files, load
from compression.graph.naming import all_graphs, fresh_name
from compression.graph.opsets import upgrade_opset
from compression.graph.saving import save
from compression.graph.shapes import infer_shapes
from compression.graph.summaries import inspect_model, left_alone, select, summarise

__all__ = [
    "Layer",
    "all_graphs",
    "check_same_interface",
    "clean",
    "external_files",
    "fresh_name",
    "infer_shapes",
    "inspect_model",
    "interface",
    "layers",
    "left_alone",
    "load",
    "replace_weight",
    "save",
    "select",
    "shared_weights",
    "summarise",
    "upgrade_opset",
]
