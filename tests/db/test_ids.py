import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from db.ids import new_id


def test_an_id_is_its_prefix_and_26_characters_of_crockford() -> None:
    assert re.fullmatch(r"job_[0-7][0-9a-hjkmnp-tv-z]{25}", new_id("job"))


def test_ids_rise_within_a_millisecond_and_are_never_equal() -> None:
    made = [new_id("job") for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_ids_rise_when_the_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_id("job")
    earlier = time.time_ns() - 3600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: earlier)
    assert new_id("job") > first


def test_threads_never_make_the_same_id() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_id("x"), range(5000)))
    assert len(set(made)) == 5000


def test_the_time_is_in_the_first_ten_characters() -> None:
    alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
    value = 0
    for character in new_id("x")[2:12]:
        value = value * 32 + alphabet.index(character)
    assert abs(value / 1000 - time.time()) < 5
