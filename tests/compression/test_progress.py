"""One number for the whole job, by a clock that the test turns."""

import pytest

from compression.job import EVENT, Event, Progress
from compression.progress import Tracker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def tracker(heard: list[Event], clock: Clock, done: int = 0, midway: bool = False) -> Tracker:
    return Tracker([1.0, 3.0], heard.append, done=done, midway=midway, clock=clock)


def last(heard: list[Event]) -> Progress:
    assert isinstance(heard[-1], Progress)
    return heard[-1]


def test_parts_weigh_by_their_seconds() -> None:
    heard: list[Event] = []
    clock = Clock()
    parts = tracker(heard, clock)
    parts.report(0, 1.0, "first done")
    assert last(heard).overall == 0.25
    parts.report(1, 0.0, "second")
    clock.now += 1
    parts.report(1, 0.5, "halfway")
    assert (last(heard).overall, last(heard).fraction, last(heard).message) == (0.625, 0.5, "halfway")


def test_eta_is_the_forecast_first_then_the_pace_of_the_running_part() -> None:
    heard: list[Event] = []
    clock = Clock()
    parts = tracker(heard, clock)
    parts.report(0, 0.0, "starting")
    assert last(heard).eta_s == 4.0
    clock.now += 8
    parts.report(0, 0.5, "half of what was forecast as one second took eight")
    assert last(heard).eta_s == 8 + 3 * 4
    clock.now += 8
    parts.report(0, 1.0, "and the other half")
    parts.report(1, 0.0, "the second part")
    clock.now += 3
    parts.report(1, 0.5, "has a pace of its own")
    assert last(heard).eta_s == 3.0


def test_a_long_part_is_estimated_from_its_first_seconds_on() -> None:
    """One that is forecast as three seconds and takes hours must not be seconds away for minutes."""
    heard: list[Event] = []
    clock = Clock()
    parts = tracker(heard, clock, done=1)
    clock.now += 10
    parts.report(1, 0.001, "the first thousandth took ten seconds")
    assert last(heard).eta_s == pytest.approx(9990)


def test_a_resumed_part_took_no_time() -> None:
    heard: list[Event] = []
    clock = Clock()
    parts = tracker(heard, clock, done=1)
    clock.now += 6
    parts.report(1, 0.5, "half of three quarters took six seconds")
    assert last(heard).overall == 0.625
    assert last(heard).eta_s == 6.0


def test_never_falls_and_stays_within_bounds() -> None:
    heard: list[Event] = []
    parts = tracker(heard, Clock())
    for index, fraction in ((1, 1.0), (0, 0.0), (1, 7.0), (1, -1.0)):
        parts.report(index, fraction, "")
    assert [event.overall for event in heard if isinstance(event, Progress)] == [1.0] * 4
    assert [event.fraction for event in heard if isinstance(event, Progress)] == [1.0, 0.0, 1.0, 0.0]


def test_chatter_is_dropped_but_ends_are_told() -> None:
    heard: list[Event] = []
    clock = Clock()
    parts = tracker(heard, clock)
    parts.report(0, 0.0, "")
    for number in range(1, 100):
        clock.now += 0.01
        parts.report(0, number / 100, "")
    parts.report(0, 1.0, "")
    assert 5 <= len(heard) <= 8


@pytest.mark.parametrize(
    "event",
    [
        Progress(index=1, fraction=0.5, overall=0.25, message="m", eta_s=None),
    ],
)
def test_events_survive_json(event: Event) -> None:
    assert EVENT.validate_json(event.model_dump_json()) == event


def test_what_a_checkpoint_had_done_says_nothing_about_the_speed() -> None:
    heard: list[Event] = []
    clock = Clock()
    parts = tracker(heard, clock, done=1, midway=True)
    parts.report(1, 0.0, "starting")
    parts.report(1, 0.5, "going on")
    clock.now += 4
    parts.report(1, 0.75, "on its way")
    assert last(heard).eta_s == 4.0
