"""Folds what is constant and drops what is not needed, changing neither interface nor results."""

import onnx_ir as ir
from onnx_ir.passes import common


def clean(model: ir.Model) -> ir.Model:
    common.IdentityEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    return model
