"""The names of the operators that training knows, kept apart from them so that torch need not be there."""

OPERATOR_NAMES = frozenset(
    {
        *("Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh"),
        *("BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "BlackmanWindow"),
        *("Cast", "CastLike", "Ceil", "Celu", "CenterCropPad", "Clip", "Compress", "Concat"),
        *("ConcatFromSequence", "Constant", "ConstantOfShape", "Cos", "Cosh", "CumProd", "CumSum", "DFT"),
        *("DepthToSpace", "Det", "Div", "Dropout", "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand"),
        *("EyeLike", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm"),
        *("Greater", "GreaterOrEqual", "HammingWindow", "HannWindow", "HardSigmoid", "HardSwish"),
        *("Hardmax", "Identity", "If", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log"),
        *("LogSoftmax", "Loop", "MatMul", "MatMulInteger", "Max", "Mean", "MelWeightMatrix", "Min"),
        *("Mish", "Mod", "Mul", "Neg", "NegativeLogLikelihoodLoss", "NonMaxSuppression", "NonZero"),
        *("Not", "OneHot", "Optional", "OptionalGetElement", "OptionalHasElement", "Or", "PRelu", "Pow"),
        *("Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax"),
        *("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape"),
        *("ReverseSequence", "RoiAlign", "Round", "STFT", "Scan", "Scatter", "ScatterElements"),
        *("ScatterND", "Selu", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase"),
        *("SequenceInsert", "SequenceLength", "SequenceMap", "Shape", "Shrink", "Sigmoid", "Sign", "Sin"),
        *("Sinh", "Size", "Slice", "Softmax", "SoftmaxCrossEntropyLoss", "Softplus", "Softsign"),
        *("SpaceToDepth", "Split", "SplitToSequence", "Sqrt", "Squeeze", "Sub", "Sum", "SwiGLU", "Swish"),
        *("Tan", "Tanh", "TensorScatter", "ThresholdedRelu", "Tile", "TopK", "Transpose", "Trilu"),
        *("Unique", "Unsqueeze", "Where", "Xor", "com.microsoft::BiasGelu", "com.microsoft::FastGelu"),
        *("com.microsoft::FusedMatMul", "com.microsoft::Gelu", "com.microsoft::QuickGelu"),
    }
)
"""The keys of `tables.OPERATORS`."""

WITHOUT_GRADIENT = frozenset(
    {
        *("ArgMax", "ArgMin", "And", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor"),
        *("Ceil", "ConvInteger", "ConstantOfShape", "Equal", "EyeLike", "Floor", "Greater"),
        *("GreaterOrEqual", "Hardmax", "IsInf", "IsNaN", "Less", "LessOrEqual", "MatMulInteger"),
        *("NonMaxSuppression", "NonZero", "Not", "OneHot", "OptionalHasElement", "Or", "QLinearConv"),
        *("QLinearMatMul", "Range", "Round", "SequenceLength", "Shape", "Sign", "Size", "Xor"),
    }
)
"""Operators whose outputs are positions, truths, whole numbers or steps: their slope is zero or undefined."""
