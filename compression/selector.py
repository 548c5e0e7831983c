"""Which layers a step touches: exact names, globs and operator types, included and excluded."""

import difflib
import fnmatch
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from compression.errors import SelectorMatchedNothing
from compression.summary import LayerSummary

Pattern = str
OP_PREFIX = "op:"


class LayerSelector(BaseModel):
    """Picks layers by pattern. A pattern is a layer's name, a glob (`encoder.*`), or `op:Conv` for a type."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    include: tuple[Pattern, ...] = Field(
        ("*",),
        min_length=1,
        max_length=1000,
        description="layers to take: names, globs such as `encoder.*`, or operator types such as `op:Conv`",
    )
    exclude: tuple[Pattern, ...] = Field(
        (), max_length=1000, description="layers to leave out again, written the same way"
    )

    def select(self, layers: Sequence[LayerSummary]) -> tuple[LayerSummary, ...]:
        """The layers that are included and not excluded, in the model's order.

        Raises:
            SelectorMatchedNothing: a pattern, or the whole selection, matches none of `layers`; the hint
                lists the nearest names.
        """
        for pattern in (*self.include, *self.exclude):
            if pattern != "*" and not any(matches(pattern, layer) for layer in layers):
                raise SelectorMatchedNothing(
                    f"the pattern {pattern!r} matches none of the {len(layers)} layers this step can work on",
                    where=pattern,
                    hint=_nearest(pattern, layers),
                )
        chosen = tuple(
            layer
            for layer in layers
            if any(matches(pattern, layer) for pattern in self.include)
            and not any(matches(pattern, layer) for pattern in self.exclude)
        )
        if not chosen and layers:
            raise SelectorMatchedNothing(
                f"nothing is left of {len(layers)} layers after include={list(self.include)} "
                f"and exclude={list(self.exclude)}",
                hint=_nearest(self.include[0], layers),
            )
        return chosen


def matches(pattern: Pattern, layer: LayerSummary) -> bool:
    if pattern.startswith(OP_PREFIX):
        return fnmatch.fnmatchcase(layer.op_type, pattern.removeprefix(OP_PREFIX))
    return pattern == layer.name or fnmatch.fnmatchcase(layer.name, pattern)


def _nearest(pattern: Pattern, layers: Sequence[LayerSummary]) -> str:
    """The nearest layer names, or the nearest operator types for a pattern that asks for a type."""
    names = [layer.name for layer in layers]
    types = sorted({OP_PREFIX + layer.op_type for layer in layers})
    pool = types if pattern.startswith(OP_PREFIX) else names
    near = difflib.get_close_matches(pattern.replace("*", ""), pool, n=5, cutoff=0.4) or pool[:5]
    return f"did you mean {', '.join(near)}? Types here: {', '.join(types)}"
