"""Shards: lines by host, in sizes, at flat memory."""

import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from wirespeed.batch import Request
from wirespeed.cluster import shards as shards_module
from wirespeed.cluster.feed import Feed
from wirespeed.cluster.shards import HELD_MAX, SIZE_MAX, Shelf, Sizes, host_of, pack, unpack
from wirespeed.jobs import Line


def lines_of(*hosts: str) -> Iterator[Line]:
    return (Line(number, Request("GET", f"http://{host}/{number}")) for number, host in enumerate(hosts, 1))


def shelf_of(lines: Iterator[Line]) -> Shelf:
    return Shelf(Feed(lines, may_wait=False))


def all_of(shelf: Shelf, size: int) -> list[list[int]]:
    found = []
    while lines := shelf.take(size):
        found.append([number for number, _ in lines])
    return found


def test_lines_of_a_host_are_together() -> None:
    shelf = shelf_of(lines_of("a", "b", "a", "b", "a", "b"))
    assert all_of(shelf, 3) == [[1, 3, 5], [2, 4, 6]]
    assert shelf.has_ended
    assert not shelf.held


def test_what_is_left_of_small_hosts_is_put_together() -> None:
    assert all_of(shelf_of(lines_of("a", "b", "b", "c")), 3) == [[1, 2, 3], [4]]


@settings(max_examples=50)
@given(st.lists(st.sampled_from("abcdefgh"), max_size=300), st.integers(1, 40))
def test_each_line_is_taken_once_in_order(hosts: list[str], size: int) -> None:
    found = all_of(shelf_of(lines_of(*hosts)), size)
    assert sorted(number for shard in found for number in shard) == list(range(1, len(hosts) + 1))
    assert all(shard == sorted(shard) and len(shard) <= size for shard in found)


def test_no_more_is_read_than_can_be_held() -> None:
    read = 0

    def lines() -> Iterator[Line]:
        nonlocal read
        for number in range(10**9):
            read += 1
            yield Line(number + 1, Request("GET", f"http://host{number}/"))

    shelf = shelf_of(lines())
    assert len(shelf.take(SIZE_MAX)) == SIZE_MAX
    assert read == HELD_MAX


def test_shards_are_small_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "BYTES_MAX", 10_000)
    monkeypatch.setattr(shards_module, "HELD_BYTES_MAX", 40_000)
    lines = (Line(number, Request("POST", "http://a/", data="x" * 3_000)) for number in range(1, 101))
    found = all_of(shelf_of(lines), 50)
    assert Counter(map(len, found)) == {4: 25}


def test_requests_come_out_as_they_went_in() -> None:
    request = Request(
        "POST", URL("http://a/%2F", encoded=True), {"q": ["1"]}, {"X": "y"}, {"j": 1}, None, "id"
    )
    assert unpack((7, pack(Line(7, request)))) == Line(7, request)
    assert unpack((8, pack(Line(8, None, "bad")))) == Line(8, None, "bad")


def test_what_cannot_be_sent_to_a_worker_is_a_bad_line() -> None:
    [packed] = shelf_of(iter([Line(1, Request("POST", "http://a/", data=threading.Lock()))])).take(10)
    line = unpack(packed)
    assert line.request is None
    assert line.error is not None
    assert "cannot be sent to a worker" in line.error


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://A.example:80/x?y", "http://a.example:80"),
        ("https://u:p@a.example?q=/", "https://a.example"),
        ("https://[::1]:8080", "https://[::1]:8080"),
        ("nonsense", ""),
        (URL("http://a.example/x"), "http://a.example"),
        (URL("/relative"), ""),
    ],
)
def test_host(url: "str | URL", host: str) -> None:
    assert host_of(Line(1, Request("GET", url))) == host


def test_a_line_without_request_has_no_host() -> None:
    assert host_of(Line(1, None, "bad")) == ""


# Lines that are long in coming


def test_a_pipe_that_says_nothing_holds_nobody_up() -> None:
    more = threading.Event()

    def lines() -> Iterator[Line]:
        yield from lines_of("a", "a")
        more.wait(20)
        yield Line(3, Request("GET", "http://a/3"))

    shelf = Shelf(Feed(lines(), may_wait=True))
    found: list[int] = []
    deadline = time.monotonic() + 20
    while len(found) < 2 and time.monotonic() < deadline:
        found += [number for number, _ in shelf.take(100)]
    assert found == [1, 2]
    assert shelf.take(100) == []
    assert not shelf.has_ended
    more.set()
    while not shelf.has_ended and time.monotonic() < deadline:
        found += [number for number, _ in shelf.take(100)]
    assert found == [1, 2, 3]


def test_errors_of_the_input_come_through() -> None:
    def lines() -> Iterator[Line]:
        raise OSError("gone")
        yield

    shelf = Shelf(Feed(lines(), may_wait=True))
    deadline = time.monotonic() + 20
    with pytest.raises(OSError, match="gone"):
        _take_all(shelf, deadline)


def _take_all(shelf: Shelf, deadline: float) -> None:
    while not shelf.has_ended and time.monotonic() < deadline:
        shelf.take(1)


# Sizes


def test_the_first_shard_is_of_slow_requests_as_long_as_nobody_knows() -> None:
    assert Sizes(100).next(None, None, 2) == 800


def test_fast_requests_come_in_full_shards() -> None:
    sizes = Sizes(100)
    sizes.note(800, 0.1)
    assert sizes.next(None, None, 2) == SIZE_MAX


def test_slow_requests_come_in_shards_of_seconds() -> None:
    sizes = Sizes(100)
    sizes.note(800, 80.0)
    assert sizes.next(None, None, 2) == 80


def test_a_share_of_the_rate_bounds_the_shard() -> None:
    assert Sizes(100).next(20.0, None, 2) == 160
    assert Sizes(100).next(0.1, None, 2) == 1


def test_the_last_shards_are_small() -> None:
    sizes = Sizes(1000)
    assert sizes.next(None, 8_000, 4) == 1_000
    assert sizes.next(None, 10, 4) == 50
