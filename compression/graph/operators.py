"""Which inputs of an operator are its weights, the main one first."""

from collections.abc import Iterator

import onnx_ir as ir

DEFAULT_DOMAINS = frozenset({"", "ai.onnx"})


def is_operator(node: ir.Node, *kinds: str) -> bool:
    """Whether the node is one of ONNX's own operators of these names."""
    return node.domain in DEFAULT_DOMAINS and node.op_type in kinds


WEIGHT_INPUTS: dict[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "DeformConv": (1, 3),
    "Gemm": (1, 0, 2),
    "MatMul": (1, 0),
    "LSTM": (1, 2, 3, 7),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
    "Gather": (0,),
    "QLinearConv": (3, 8),
    "ConvInteger": (1,),
    "MatMulInteger": (1, 0),
    "QLinearMatMul": (3, 0),
    "FusedConv": (1, 2),
    "NhwcFusedConv": (1, 2),
    "FusedGemm": (1, 0, 2),
    "FusedMatMul": (1, 0),
    "MatMulNBits": (1, 5),
    "MatMulBnb4": (1,),
    "MatMulFpQ4": (1,),
    "MatMulInteger16": (1, 0),
    "MatMulIntegerToFloat": (1, 6),
    "DynamicQuantizeMatMul": (1, 4),
    "DynamicQuantizeLSTM": (1, 2, 3),
    "QGemm": (3, 6),
    "QAttention": (1, 2),
    "QEmbedLayerNormalization": (2, 3, 4),
    "GatherBlockQuantized": (0,),
    "EmbedLayerNormalization": (2, 3, 4, 5, 6),
    "QMoE": (2, 5, 8),
}
"""Operators with a known order. Any other one is taken to have weights where it has float constants."""

NOT_LAYERS = frozenset(
    {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Constant", "ConstantOfShape"),
        *("Identity", "Cast", "CastLike", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Shape"),
        *("Resize", "Upsample", "Pad", "Clip", "Range", "OneHot", "Expand", "Tile", "Slice", "Size"),
        *("If", "Loop", "Scan", "SequenceConstruct", "NonMaxSuppression", "RoiAlign", "GridSample"),
        *("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Dropout", "Bernoulli"),
        *("RandomNormal", "RandomUniform", "Multinomial", "HannWindow", "HammingWindow", "BlackmanWindow"),
    }
)
"""Their float constants are settings, or plain data on its way, and never weights."""

FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})
NARROW = frozenset(
    {
        *(ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16),
        *(ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.INT2, ir.DataType.UINT2, ir.DataType.FLOAT4E2M1),
        *(ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E4M3FNUZ, ir.DataType.FLOAT8E5M2),
        *(ir.DataType.FLOAT8E5M2FNUZ, ir.DataType.FLOAT6E2M3, ir.DataType.FLOAT6E3M2),
    }
)
"""Types that quantized weights are stored in."""

QUANTIZED_OPERATORS = frozenset(
    {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"),
        *("ConvInteger", "MatMulInteger", "MatMulNBits", "MatMulBnb4", "MatMulFpQ4", "QGemm", "QAttention"),
        *("MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "GatherBlockQuantized"),
        *("QMoE", "QEmbedLayerNormalization"),
    }
)


def is_quantized_operator(node: ir.Node) -> bool:
    return node.op_type in QUANTIZED_OPERATORS or node.op_type.startswith("QLinear")


def operator_key(node: ir.Node) -> str:
    """`Conv` for the default domain, `com.microsoft::FusedConv` for others."""
    return node.op_type if node.domain in DEFAULT_DOMAINS else f"{node.domain}::{node.op_type}"


def weight_inputs(node: ir.Node) -> Iterator[ir.Value]:
    """The inputs that may be weights, in order; empty for operators that have none."""
    if node.op_type in NOT_LAYERS:
        return
    order = WEIGHT_INPUTS.get(node.op_type, range(len(node.inputs)))
    for index in order:
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is not None:
            yield value
