"""sparse_code: a weight as a dictionary times sparse codes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from compression.method import NO_MODELS, Change, Forecast, Role, StepContext, StepOutcome
from compression.summary import DatasetSummary, LayerSummary, ModelSummary
from compression.weight_targets import OP_TYPES
from compression.whitening import WhitenedMethod

if TYPE_CHECKING:
    import onnx_ir as ir


class SparseCode(WhitenedMethod):
    """Stores blocks of weights as sums of few atoms of a dictionary that each layer learns (K-SVD, OMP).

    A block of `block` weights takes `nonzeros` numbers of atoms and as many gains of few bits. With calibration data
    codes keep what the layer gives for it: each block's error is made up for by the blocks that follow, and biases take
    up the mean. The runtime turns dictionary and codes into floats as it loads, so that the file shrinks and nothing
    gets faster; for a moment a layer's weights lie in memory `nonzeros` times over. A layer that would not get smaller,
    or cannot keep the `error` that is asked for, is left as it is. A following `finetune` trains the dictionaries.
    """

    title: ClassVar[str] = "Store weights as a dictionary times sparse codes"
    source: ClassVar[str] = (
        "K-SVD: Aharon, Elad and Bruckstein 2006, IEEE Trans. Signal Processing 54(11); Batch-OMP and approximate "
        "K-SVD: Rubinstein, Zibulevsky and Elad 2008, Technion CS-2008-08; errors made up for: Frantar et al. 2023, "
        "GPTQ (arXiv:2210.17323), equation 3"
    )
    changes: ClassVar[tuple[Change, ...]] = ("values", "dtypes", "structure")
    op_types: ClassVar[frozenset[str] | None] = OP_TYPES
    example: ClassVar[Mapping[str, Any]] = {"method": "sparse_code", "error": 0.3, "codes": "bytes"}

    method: Literal["sparse_code"] = "sparse_code"
    atoms: int | None = Field(
        None,
        ge=2,
        le=256,
        description="of a layer's dictionary; null: a power of two from 16 to 128, an eighth of the blocks at most",
    )
    block: int | None = Field(
        None,
        ge=2,
        le=256,
        description="weights of one output that are coded together; null: whole kernels, or 8 weights",
    )
    nonzeros: int = Field(12, ge=1, le=16, description="atoms that a block is a sum of, at most")
    error: float | None = Field(
        0.15,
        gt=0,
        lt=1,
        description="bound on each layer's relative error (Frobenius; of its outputs where calibration data counts): "
        "blocks take no more atoms than it needs; a layer that cannot keep it is left. null: all get `nonzeros`",
    )
    value_bits: int = Field(5, ge=2, le=8, description="of the gain of an atom in a block")
    rounds: int = Field(
        20, ge=1, le=1000, description="rounds of K-SVD: coding all blocks, then updating all atoms"
    )
    codes: Literal["bits", "bytes"] = Field(
        "bits",
        description="`bits` packs codes tightly, for the smallest ONNX file; `bytes` gives each number a byte, which "
        "a following `pack` compresses better",
    )

    def forecast(
        self,
        model: ModelSummary,
        data: Mapping[Role, DatasetSummary],
        models: Mapping[str, ModelSummary] = NO_MODELS,
    ) -> Forecast:
        told = super().forecast(model, data, models)
        peak = told.peak_memory_bytes + self.fitting_bytes(model, data, copies=8)
        return told.model_copy(update={"peak_memory_bytes": peak})

    def after(self, layer: LayerSummary) -> LayerSummary:
        from compression.sparse_coding.forecast import coded_layer

        return coded_layer(layer, self)

    def seconds(self, model: ModelSummary, data: Mapping[Role, DatasetSummary]) -> float:
        layers = len([layer for layer in model.layers if self.after(layer) != layer])
        learning = layers * self.rounds * 0.02
        coding = model.parameters / 5e4
        return super().seconds(model, data) + learning + coding + self.looking_seconds(model, data)

    def apply(self, model: "ir.Model", context: StepContext) -> StepOutcome:
        from compression.graph import select
        from compression.sparse_coding.fitting import Coding
        from compression.sparse_coding.inputs import Inputs, look
        from compression.sparse_coding.run import sparse_code

        self.require_data(context)
        chosen = select(model, self)
        coding = Coding(
            atoms=self.atoms,
            block=self.block,
            nonzeros=self.nonzeros,
            error=self.error,
            value_bits=self.value_bits,
            rounds=self.rounds,
            seed=context.seed,
        )
        context.report(0.0, "finding weights to code")
        inputs = (
            Inputs()
            if self.whiten == "none"
            else look(model, chosen, context, most=self.max_samples, correct_biases=self.correct_biases)
        )
        return sparse_code(model, chosen, coding, inputs, context, storage=self.codes)
