"""The algebra of axes: splitting, merging, joining and lining up, seen by which positions leave with which."""

import numpy as np
import onnx_ir as ir
import pytest

from compression.graph.channels import joining, lining
from compression.graph.channels.labels import UNIT, Label, Rigid, kept, plain, rigid, size_of
from compression.graph.channels.sizes import ONE, Size
from compression.graph.channels.units import Place, Units, refined


def axis(units: Units, size: int, name: str = "w") -> Label:
    value = ir.Value(name=name)
    return lining.chain(units, [(tuple(factors),) for factors in units.source(Place(value, 0), size)])


def gone(units: Units, label: Label, *doomed: int) -> list[int]:
    """The positions of an axis that leave when these units, by id, leave."""
    roots = units.roots()
    alive = ~np.isin(roots, roots[list(doomed)])
    return np.flatnonzero(~kept(label, alive)).tolist()


def stuck(units: Units, label: Label) -> bool:
    """Whether every unit of the axis is tied to one that stays."""
    roots = units.roots()
    locks = roots[list(units.locks)] if units.locks else []
    return all(
        np.isin(roots[vector], locks).all()
        for segment in label
        for vector in segment
        if not isinstance(vector, Rigid)
    )


def test_sizes_divide_exactly_or_not_at_all():
    size = Size(12, ("batch",))
    assert size.over(Size(4)) == Size(3, ("batch",))
    assert size.over(Size(6, ("batch",))) == Size(2)
    assert size.over(Size(5)) is None
    assert size.over(Size(3, ("frames",))) is None
    assert Size(2, ("b",)) * Size(3, ("a",)) == Size(6, ("a", "b"))
    assert str(size) == "12 * batch"


def test_a_split_is_asked_for_and_then_granted():
    units, value = Units(), ir.Value(name="w")
    (whole,) = units.source(Place(value, 0), 12)
    joining.split(units, ((whole[0],),), 3)
    (demand,) = units.demands
    assert (demand.start, demand.sizes) == (0, (3, 4))
    structure = refined({}, units.demands)
    assert structure == {Place(value, 0): ((3, 4),)}
    again = Units(structure=structure)
    label = (tuple(again.source(Place(value, 0), 12)[0]),)
    heads, inside = joining.split(again, label, 3)
    assert not again.demands
    assert gone(again, label, int(plain(heads)[1])) == [4, 5, 6, 7]
    assert gone(again, label, int(plain(inside)[1])) == [1, 5, 9]


def test_a_part_of_an_axis_becomes_a_segment_of_its_own():
    units = Units()
    label = axis(units, 12)
    joining.split(units, lining.part(units, label, 4, 10), 2)
    ((place, segments),) = refined({}, units.demands).items()
    assert place.axis == 0
    assert segments == ((4,), (2, 3), (2,))


def test_once_settled_the_parts_stay_alike():
    units = Units(settled=True)
    label = axis(units, 12)
    _, inside = joining.split(units, label, 3)
    assert gone(units, label, int(plain(inside)[1])) == [1, 5, 9]


def test_merging_what_was_divided_gives_the_same():
    units = Units(structure={})
    first, second = axis(units, 3, "a"), axis(units, 4, "b")
    merged = lining.merge(units, [first, UNIT, second])
    assert size_of(merged) == Size(12)
    assert joining.divide(units, merged, [Size(3), Size(4)]) == [first, second]
    assert gone(units, merged, int(plain(first)[2])) == [8, 9, 10, 11]


def test_a_rigid_factor_of_unknown_size():
    units = Units()
    channels, places = axis(units, 6), rigid(Size(1, ("places",)), units.lock_id("places"))
    merged = lining.merge(units, [channels, places])
    assert size_of(merged) == Size(6, ("places",))
    assert joining.divide(units, merged, [Size(6), Size(1, ("places",))])[0] == channels


def test_factors_that_do_not_fit_are_locked():
    units = Units(settled=True)
    first, second = axis(units, 4, "a"), axis(units, 6, "b")
    merged = lining.merge(units, [first, second])
    joining.divide(units, merged, [Size(3), Size(8)])
    assert stuck(units, first)
    assert stuck(units, second)


def test_joined_axes_lose_the_same_positions():
    units = Units()
    first, second = axis(units, 5, "a"), axis(units, 5, "b")
    joined = joining.join(units, first, second)
    assert gone(units, joined, int(plain(second)[3])) == [3]


def test_a_vector_joined_with_a_product_of_one_free_factor():
    units = Units()
    channels, flat = axis(units, 3, "a"), axis(units, 12, "b")
    product = lining.merge(units, [channels, rigid(Size(4), units.lock_id("places"))])
    joining.join(units, product, flat)
    assert not units.demands
    assert gone(units, flat, int(plain(channels)[1])) == [4, 5, 6, 7]


def test_what_is_rigid_locks_what_it_meets():
    units = Units()
    label = axis(units, 5)
    joining.join(units, rigid(Size(5), units.lock_id("it is fixed")), label)
    assert stuck(units, label)
    assert list(units.locks.values()) == ["it is fixed"]


def test_axes_in_a_row():
    units = Units()
    first, second = axis(units, 3, "a"), axis(units, 4, "b")
    row = lining.chain(units, [first, rigid(Size(2), units.lock_id("pads")), second])
    assert gone(units, row, int(plain(second)[0])) == [5]
    back = lining.part(units, row, 5, 9)
    np.testing.assert_array_equal(plain(back), plain(second))


@pytest.mark.parametrize("outer", [2, 5])
def test_channels_shuffled_in_a_row(outer):
    """Of two halves put beside each other and read as rows, positions under each other are tied."""
    units = Units()
    row = lining.chain(units, [axis(units, 5, "a"), axis(units, 5, "b")])
    joining.split(units, row, outer)
    assert gone(units, row, 1) == ([1, 6] if outer == 2 else [0, 1])


def test_gates_are_folded():
    units = Units()
    label = axis(units, 12)
    assert size_of(joining.fold(units, label, 4)) == Size(3)
    assert gone(units, label, 1) == [1, 4, 7, 10]


def test_a_single_position_stays():
    units = Units()
    label = axis(units, 3)
    assert size_of(lining.part(units, label, 1, 2)) == ONE
    assert stuck(units, lining.part(units, label, 1, 2))
    assert gone(units, label, 0) == [0]


def test_product_segments_beside_each_other_are_joined_piece_by_piece():
    """Queries and keys in one axis, each by heads: joined with a plain axis, that is asked to be the same."""
    units = Units()
    heads = [axis(units, 2, name) for name in "abcd"]
    row = lining.chain(units, [lining.merge(units, heads[:2]), lining.merge(units, heads[2:])])
    assert len(row) == 2
    joining.join(units, row, axis(units, 8, "w"))
    ((_, segments),) = refined({}, units.demands[:1]).items()
    assert segments in (((2, 2), (4,)), ((4,), (2, 2)))
