"""The names of the operators that training knows, kept apart from them so that torch need not be there."""

OPERATOR_NAMES = frozenset(
    {
        *("Abs", "Acos", "Acosh", "Add", "AffineGrid", "And", "ArgMax", "ArgMin", "Asin", "Asinh"),
        *("Atan", "Atanh", "Attention", "AveragePool", "BatchNormalization", "BitCast", "BitShift"),
        *("BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "BlackmanWindow", "Cast", "CastLike"),
        *("CausalConvWithState", "Ceil", "Celu", "CenterCropPad", "Clip", "Col2Im", "Compress", "Concat"),
        *("ConcatFromSequence", "Constant", "ConstantOfShape", "Conv", "ConvInteger", "ConvTranspose"),
        *("Cos", "Cosh", "CumProd", "CumSum", "DFT", "DeformConv", "DepthToSpace", "DequantizeLinear"),
        *("Det", "Div", "Dropout", "DynamicQuantizeLinear", "Einsum", "Elu", "Equal", "Erf", "Exp"),
        *("Expand", "EyeLike", "Flatten", "Floor", "GRU", "Gather", "GatherElements", "GatherND", "Gelu"),
        *("Gemm", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "Greater", "GreaterOrEqual"),
        *("GridSample", "GroupNormalization", "HammingWindow", "HannWindow", "HardSigmoid", "HardSwish"),
        *("Hardmax", "Identity", "If", "InstanceNormalization", "IsInf", "IsNaN", "LRN", "LSTM"),
        *("LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "LinearAttention", "Log"),
        *("LogSoftmax", "Loop", "LpNormalization", "LpPool", "MatMul", "MatMulInteger", "Max", "MaxPool"),
        *(
            "MaxRoiPool",
            "MaxUnpool",
            "Mean",
            "MeanVarianceNormalization",
            "MelWeightMatrix",
            "Min",
            "Mish",
            "Mod",
        ),
        *("Mul", "Neg", "NegativeLogLikelihoodLoss", "NonMaxSuppression", "NonZero", "Not", "OneHot"),
        *("Optional", "OptionalGetElement", "OptionalHasElement", "Or", "PRelu", "Pad", "Pow"),
        *("QLinearConv", "QLinearMatMul", "QuantizeLinear", "RMSNormalization", "RNN", "Range"),
        *("Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax"),
        *("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape"),
        *("Resize", "ReverseSequence", "RoiAlign", "RotaryEmbedding", "Round", "STFT", "Scan", "Scatter"),
        *("ScatterElements", "ScatterND", "Selu", "SequenceAt", "SequenceConstruct", "SequenceEmpty"),
        *("SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap", "Shape", "Shrink"),
        *("Sigmoid", "Sign", "SimplifiedLayerNormalization", "Sin", "Sinh", "Size", "Slice", "Softmax"),
        *("SoftmaxCrossEntropyLoss", "Softplus", "Softsign", "SpaceToDepth", "Split", "SplitToSequence"),
        *("Sqrt", "Squeeze", "Sub", "Sum", "SwiGLU", "Swish", "Tan", "Tanh", "TensorScatter"),
        *("ThresholdedRelu", "Tile", "TopK", "Transpose", "Trilu", "Unique", "Unsqueeze", "Upsample"),
        *("Where", "Xor", "ai.onnx.preview::FlexAttention", "com.microsoft::Attention"),
        *("com.microsoft::BiasGelu", "com.microsoft::DequantizeLinear", "com.microsoft::FastGelu"),
        *("com.microsoft::DynamicQuantizeLSTM", "com.microsoft::EmbedLayerNormalization"),
        *("com.microsoft::FusedGemm", "com.microsoft::GridSample", "com.microsoft::Pad"),
        *("com.microsoft::FusedConv", "com.microsoft::FusedMatMul", "com.microsoft::Gelu"),
        *("com.microsoft::GroupNorm", "com.microsoft::GroupQueryAttention"),
        *("com.microsoft::LayerNormalization", "com.microsoft::MultiHeadAttention"),
        *("com.microsoft::QuantizeLinear", "com.microsoft::QuickGelu", "com.microsoft::RotaryEmbedding"),
        *("com.microsoft::SimplifiedLayerNormalization", "com.microsoft::SkipGroupNorm"),
        *("com.microsoft::SkipLayerNormalization", "com.microsoft::SkipSimplifiedLayerNormalization"),
    }
)
"""The keys of `tables.OPERATORS`."""

WITHOUT_GRADIENT = frozenset(
    {
        *("ArgMax", "ArgMin", "And", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor"),
        *("Ceil", "ConstantOfShape", "Equal", "EyeLike", "Floor", "Greater", "GreaterOrEqual", "Hardmax"),
        *("IsInf", "IsNaN", "Less", "LessOrEqual", "NonMaxSuppression", "NonZero", "Not", "OneHot"),
        *("OptionalHasElement", "Or", "Range", "Round", "SequenceLength", "Shape", "Sign", "Size", "Xor"),
    }
)
"""Operators whose outputs are positions, truths, whole numbers or steps: their slope is zero or undefined."""
