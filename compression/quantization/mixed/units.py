"""The weights that get a precision each, with the forms that each can take."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from compression.graph import Layer
from compression.method import StepContext
from compression.quantization.affine import sqnr_db
from compression.quantization.mixed.forms import AsItWas, Bytes, Form, Half, half_bytes, packed
from compression.quantization.mixed.grounds import calibration_data, fitted_samples
from compression.quantization.mixed.settings import KEPT, PRECISIONS, MixedOptions, Precision
from compression.quantization.narrow.planning import Item, plan
from compression.quantization.narrow.rounding_items import round_items
from compression.quantization.narrow.spill import Spill
from compression.quantization.narrow_floats import FLOAT16, overflow
from compression.quantization.storage import as_numpy, release, stored_bytes
from compression.quantization.weights import quantize_weight

_TRIED = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE})


@dataclass(frozen=True, kw_only=True, eq=False)
class Unit:
    """One stored weight, however many layers compute with it."""

    value: ir.Value
    layers: tuple[str, ...]
    forms: Mapping[Precision, Form]
    """From the smallest to the largest; at least one."""
    refused: Mapping[Precision, str]
    """Why it cannot take the others that were asked for."""

    @property
    def name(self) -> str:
        return self.value.name or ""

    @property
    def smallest(self) -> Precision:
        return next(iter(self.forms))


@dataclass(frozen=True, kw_only=True)
class Units:
    """All of them, and what was left out."""

    items: tuple[Unit, ...]
    kept: Mapping[str, str]
    """By layer, why a weight of it takes no part."""
    facts: Mapping[str, float] = field(default_factory=dict)

    def of_layer(self, name: str) -> tuple[Unit, ...]:
        return tuple(unit for unit in self.items if name in unit.layers)


def find_units(
    model: ir.Model,
    chosen: Sequence[Layer],
    everyone: Iterable[Layer],
    options: MixedOptions,
    context: StepContext,
) -> Units:
    """Every weight of the chosen layers once, rounded to all the precisions that it may take.

    Four bits are fitted to the first calibration samples alone (`fitted_samples`).

    Raises:
        NotApplicable: a weight holds NaN or infinity; `where` names it.
        DataMismatch: the calibration data does not fit the model.
    """
    asked = options.narrowing(fitted_samples(len(calibration_data(context))))
    planned = plan(model, chosen, everyone, asked)
    facts: dict[str, float] = {}
    if "int4" in options.choices:
        facts = round_items(model, planned.items, asked, context, Spill(folder=context.workdir))
    kept, units = dict(planned.kept), []
    for item in planned.items:
        names = tuple(name for name, items in planned.of_layer.items() if item in items)
        unit = _unit(item, names, options.choices)
        if set(unit.forms) == {KEPT}:
            reason = next(iter(unit.refused.values()), "nothing but float32 was to choose from")
            kept.update(dict.fromkeys(names, reason))
        else:
            units.append(unit)
    return Units(items=tuple(units), kept=kept, facts=facts)


def _unit(item: Item, layers: tuple[str, ...], choices: Sequence[Precision]) -> Unit:
    forms: dict[Precision, Form] = {}
    refused: dict[Precision, str] = {}
    for precision in PRECISIONS:
        if precision not in choices or precision == KEPT:
            continue
        made = _form(item, precision)
        if isinstance(made, str):
            refused[precision] = made
        elif made.size_bytes >= item.tensor.nbytes:
            refused[precision] = f"{precision} would be no smaller ({item.tensor.nbytes} bytes now)"
        else:
            forms[precision] = made
    release(item.tensor)
    if KEPT in choices or not forms:
        size = item.tensor.nbytes
        forms[KEPT] = AsItWas(tensor=item.tensor, size_bytes=size, sqnr_db=float("inf"), words="as it was")
    by_size = dict(sorted(forms.items(), key=lambda pair: pair[1].size_bytes))
    return Unit(value=item.value, layers=layers, forms=by_size, refused=refused)


def _form(item: Item, precision: Precision) -> Form | str:
    tensor = item.tensor
    if tensor.dtype not in _TRIED:
        return f"{tensor.dtype.name.lower()} weights cannot be tried out one by one"
    if precision == "int4":
        return item.kept or packed(item)
    if precision == "int8":
        return _bytes(item)
    if tensor.dtype == ir.DataType.FLOAT16:
        return "its weight is float16 already"
    weight = as_numpy(tensor)
    reason = overflow(weight, FLOAT16)
    if reason:
        return reason
    half = Half(tensor=tensor, size_bytes=half_bytes(tensor), sqnr_db=0.0, words="float16")
    noise = sqnr_db(weight, half.values())
    return Half(tensor=tensor, size_bytes=half_bytes(tensor), sqnr_db=noise, words="float16")


def _bytes(item: Item) -> Form:
    axes = item.layout.row_axes
    made = quantize_weight(as_numpy(item.tensor), axes)
    return Bytes(
        tensor=item.tensor,
        size_bytes=stored_bytes(made, source=item.tensor.dtype),
        sqnr_db=made.sqnr_db,
        words="int8 per channel",
        axes=axes,
    )
