"""The domain errors of the library.

CompressionError
├── InvalidModel            the bytes are no model that can be opened, or the graph is broken
├── UnsupportedModel        a sound model of a kind that is not taken (TorchScript, pickles, custom operators)
│   └── NeedsConversion     one that can be made into ONNX first (torch.export programs)
├── InvalidDataset          the bytes are no dataset, or its arrays are broken
├── PackedError             a packed file is damaged, or is none
├── InvalidSpec             the steps contradict each other or themselves
│   └── SelectorMatchedNothing
├── NotApplicable           a sound step that this model or this data rules out
│   ├── DataMissing         a role (calibration, evaluation, ...) or labels that a step needs
│   ├── DataMismatch        arrays that do not fit the model's inputs
│   └── NotTrainable        a graph that cannot be computed or trained in torch
└── ResultRejected          a step ran, but what came out failed its own check
"""

from typing import ClassVar


class CompressionError(Exception):
    """Something the user can act on: what was wrong, where, and what would be right.

    `where` names the place (a layer, a tensor, a field path), `hint` the nearest thing that would work.
    """

    code: ClassVar[str] = "compression_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint


class InvalidModel(CompressionError):
    code = "invalid_model"


class UnsupportedModel(CompressionError):
    code = "unsupported_model"


class NeedsConversion(UnsupportedModel):
    code = "needs_conversion"


class InvalidDataset(CompressionError):
    code = "invalid_dataset"


class PackedError(CompressionError):
    code = "invalid_packed"


class InvalidSpec(CompressionError):
    code = "invalid_spec"


class SelectorMatchedNothing(InvalidSpec):
    code = "selector_matched_nothing"


class NotApplicable(CompressionError):
    code = "not_applicable"


class DataMissing(NotApplicable):
    code = "data_missing"


class DataMismatch(NotApplicable):
    code = "data_mismatch"


class NotTrainable(NotApplicable):
    code = "not_trainable"


class ResultRejected(CompressionError):
    code = "result_rejected"
