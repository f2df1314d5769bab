"""What lines mean, and what is said about those that mean nothing."""

import io
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirespeed.batch import Request
from wirespeed.jobs import lines as lines_module
from wirespeed.jobs.lines import Line, read


def only(text: str | bytes, **options: Any) -> Line:
    (line,) = read([text if isinstance(text, bytes) else text.encode()], **options)
    return line


def test_a_url_is_a_request_of_the_usual_method() -> None:
    assert only("http://host/a?b=c\n") == Line(1, Request("GET", "http://host/a?b=c"))
    assert only("HTTPS://host", method="HEAD").request == Request("HEAD", "HTTPS://host")


def test_blank_lines_and_comments_are_passed_over_but_count() -> None:
    text = b"\n# a comment\nhttp://a/\n   \n\thttp://b/  \r\n#http://c/\nhttp://d/"
    found = [(line.number, line.request and line.request.url) for line in read(io.BytesIO(text))]
    assert found == [(3, "http://a/"), (5, "http://b/"), (7, "http://d/")]


def test_byte_order_mark_and_windows_line_ends_are_no_part_of_a_line() -> None:
    found = [
        line.request and line.request.url
        for line in read(io.BytesIO(b"\xef\xbb\xbfhttp://a/\r\nhttp://b/\r\n"))
    ]
    assert found == ["http://a/", "http://b/"]


def test_a_json_object_says_all_of_a_request() -> None:
    given = {
        "method": "post",
        "url": "https://host/",
        "params": {"a": [1, "2"], "b": 3.5},
        "headers": {"X-A": "b"},
        "json": {"nested": [None, True]},
        "id": {"any": ["thing"]},
    }
    line = only(json.dumps(given))
    assert line.error is None
    assert line.request == Request(
        "POST", "https://host/", given["params"], given["headers"], given["json"], None, given["id"]
    )
    assert only('{"url": "http://host/", "data": {"a": "b"}, "method": null}').request == Request(
        "GET", "http://host/", data={"a": "b"}
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"\xffhttp://host/", "not UTF-8: byte 0xff at 1"),
        ("host/path", "no URL with http:// or https://, and no JSON object: 'host/path'"),
        ("mailto:somebody", "no URL with http:// or https://, and no JSON object: 'mailto:somebody'"),
        ("ftp://host/", "unsupported scheme 'ftp': 'ftp://host/'"),
        ("http://", "no host: 'http://'"),
        ("http:///path", "no host: 'http:///path'"),
        ("http://:80/", "no host: 'http://:80/'"),
        ('["http://host/"]', "no URL with http:// or https://, and no JSON object: '[\"http://host/\"]'"),
        ("{", "bad JSON: "),
        ('{"url": "http://host/"} x', "bad JSON: Extra data"),
        ('{"a":' * 100_000, "bad JSON: too deep"),
        ("{}", "there is no url"),
        ('{"url": null}', "there is no url"),
        ('{"url": 5}', "url must be a string, not 5"),
        ('{"url": "ftp://host/"}', "unsupported scheme 'ftp'"),
        ('{"uri": "http://host/"}', "unknown key 'uri'; there are method, url,"),
        ('{"url": "http://host/", "method": "A B"}', 'method must be an HTTP method, not "A B"'),
        ('{"url": "http://host/", "params": 1}', "params must be a string, an object or a list of pairs"),
        ('{"url": "http://host/", "params": [1]}', "params must be"),
        ('{"url": "http://host/", "params": {"a": true}}', "params['a'] must be a string or a number"),
        ('{"url": "http://host/", "params": [["a", ["b"]]]}', "params['a'] must be"),
        ('{"url": "http://host/", "headers": ["a"]}', "headers must be an object"),
        ('{"url": "http://host/", "headers": {"a": 1}}', "headers['a'] must be"),
        ('{"url": "http://host/", "headers": {"a": "b\\r\\nc: d"}}', "headers['a'] must be"),
        ('{"url": "http://host/", "headers": {"a b": "c"}}', "headers['a b'] must be"),
        ('{"url": "http://host/", "data": 1}', "data must be a string, or an object that is a form"),
        ('{"url": "http://host/", "data": {"a": 1}}', "data['a'] must be a string"),
        ('{"url": "http://host/", "data": "a", "json": 1}', "json and data exclude each other"),
        ("http" * 1000, "no URL"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_line_that_is_no_request_says_why(text: str | bytes, error: str) -> None:
    line = only(text)
    assert line.request is None
    assert line.error is not None
    assert line.error.startswith(error)
    assert len(line.error) < 200


def test_a_line_that_is_too_long_is_passed_over_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "LINE_MAX", 100)
    long = b"http://host/" + b"x" * 1000
    found = list(read(io.BytesIO(b"http://a/\n" + long + b"\nhttp://b/\n" + long)))
    assert [(line.number, line.request is None) for line in found] == [
        (1, False), (2, True), (3, False), (4, True)
    ]  # fmt: skip
    assert found[1].error == "the line is longer than 100 bytes"
    # Of exactly that length, with and without what ends it.
    fits = b"http://host/".ljust(100, b"x")
    assert [line.error for line in read(io.BytesIO(fits + b"\n" + fits))] == [None, None]


def test_without_dedup_everything_is_sent_with_it_only_what_differs() -> None:
    text = [
        b"http://a/",
        b"http://b/",
        b"http://a/",
        b'{"url": "http://a/", "id": 1}',
        b'{"url": "http://a/", "method": "POST"}',
        b'{"url": "http://a/", "json": {"x": 1, "y": 2}}',
        b'{"url": "http://a/", "json": {"y": 2, "x": 1}, "id": 5}',
        b'{"url": "http://a/\\ud800"}',
        b"ftp://bad",
        b"ftp://bad",
    ]
    assert [line.number for line in read(text)] == list(range(1, 11))
    assert [line.number for line in read(text, dedup=True)] == [1, 2, 5, 6, 8, 9, 10]


def test_a_million_lines_do_not_add_up_in_memory() -> None:
    def million() -> Any:
        for number in range(1_000_000):
            yield b"http://host/%d\n" % number

    lines = read(million())
    for _ in range(1000):
        next(lines)
    tracemalloc.start()
    try:
        # Every tenth of them is enough of a proof, and takes a tenth of the time.
        for _ in range(100_000):
            last = next(lines)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert last.number == 101_000
    assert size < 20_000


@given(st.lists(st.binary(max_size=60)))
def test_no_bytes_make_the_reader_fail_and_every_line_is_counted(chunks: list[bytes]) -> None:
    stream = io.BytesIO(b"\n".join(chunks))
    text = stream.getvalue()
    found = list(read(stream))
    assert all((line.request is None) != (line.error is None) for line in found)
    numbers = [line.number for line in found]
    assert numbers == sorted(set(numbers))
    assert len(numbers) <= text.count(b"\n") + 1


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
nested = plain | st.lists(plain, max_size=2) | st.dictionaries(st.text(max_size=3), plain, max_size=2)
KEYS = ["url", "method", "params", "headers", "json", "data", "id"]


@given(st.sampled_from(KEYS), nested | st.lists(nested, max_size=2))
def test_no_json_makes_the_reader_fail(key: str, value: Any) -> None:
    line = only(json.dumps({"url": "http://host/", key: value}))
    assert (line.request is None) != (line.error is None)
