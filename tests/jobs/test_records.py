"""Records: nothing that came is lost or changed on the way out and back."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirespeed.batch import Request
from wirespeed.jobs.lines import Line
from wirespeed.jobs.records import body_of, decode, decode_figures, encode, encode_bad, number_of

from .samples import line, record, result


def again(raw: bytes) -> dict[str, Any]:
    assert raw.endswith(b"\n")
    assert raw.count(b"\n") == 1
    found = decode(raw)
    assert found is not None
    return found


def test_a_record_says_what_was_asked_and_what_came() -> None:
    asked = line(7, "http://host/a", method="PUT", id="my id")
    got = result(
        asked, 201, b"made", [("Content-Type", "text/plain"), ("X-A", "b")], attempts=2, elapsed=0.25,
        url="http://host/a",
    )  # fmt: skip
    assert again(encode(asked, got)) == {
        "line": 7,
        "id": "my id",
        "method": "PUT",
        "url": "http://host/a",
        "status": 201,
        "attempts": 2,
        "elapsed": 0.25,
        "size": 4,
        "headers": {"Content-Type": "text/plain", "X-A": "b"},
        "body": "made",
    }


def test_the_final_url_is_there_where_it_is_another() -> None:
    asked = line(1, "http://host")
    assert "final_url" not in again(encode(asked, result(asked, url="http://host/")))
    assert again(encode(asked, result(asked, url="http://other/")))["final_url"] == "http://other/"


def test_a_failure_has_its_class_and_its_words() -> None:
    asked = line()
    found = again(encode(asked, result(asked, None, error=TimeoutError("too\nslow"))))
    assert found["status"] is None
    assert found["error"] == {"type": "TimeoutError", "message": "too\nslow"}
    assert (
        again(encode(asked, result(asked, None, error=TimeoutError())))["error"]["message"] == "TimeoutError"
    )


def test_a_bad_line_has_a_record() -> None:
    found = again(encode_bad(Line(3, None, "no host: 'http://'")))
    assert (found["line"], found["url"], found["status"]) == (3, None, None)
    assert found["error"] == {"type": "BadLine", "message": "no host: 'http://'"}
    lost = Line(4, Request("GET", "http://host/", id=4), "the worker died three times")
    found = again(encode_bad(lost, "WorkerLost"))
    assert (found["id"], found["url"], found["error"]["type"]) == (4, "http://host/", "WorkerLost")


def test_a_header_that_came_more_than_once_has_all_its_values() -> None:
    asked = line()
    got = result(asked, headers=[("Set-Cookie", "a=1"), ("X", "y"), ("set-cookie", "b=2")])
    assert again(encode(asked, got))["headers"] == {"Set-Cookie": ["a=1", "b=2"], "X": "y"}


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        (b"", "text/plain", ""),
        ("héllo".encode(), "text/plain", "héllo"),
        ("héllo".encode("latin-1"), "text/plain; charset=latin-1", "héllo"),
        ("héllo".encode("latin-1"), "text/plain", None),
        (b"\xef\xbb\xbfmark", "text/plain", "\ufeffmark"),
        (b"no mark", "text/plain; charset=utf-8-sig", None),
        (b"\0\n\r\x85\xe2\x80\xa8".replace(b"\x85", b""), "text/plain", "\0\n\r\u2028"),
        (b"+2AA-", "text/plain; charset=utf-7", "\ud800"),
        (b"text", "text/plain; charset=no-such", "text"),
        (b"text", "text/plain; charset=hex", "text"),
        (b"text", "text/plain; charset=a\0b", "text"),
        (b"\xff\xfe", None, None),
    ],
)
def test_bodies_are_text_only_where_that_is_the_same_bytes(
    body: bytes, content_type: str | None, text: str | None
) -> None:
    asked = line()
    found = again(
        encode(asked, result(asked, 200, body, [("Content-Type", content_type)] if content_type else []))
    )
    assert found.get("body") == text
    assert ("body_base64" in found) == (text is None)
    assert body_of(found) == body


CHARSETS = ["utf-8", "latin-1", "utf-16", "utf-16-le", "utf-7", "shift_jis", "iso-2022-jp", "gb18030", "idna",
            "punycode", "unicode_escape", "undefined", "none"]  # fmt: skip


@given(st.binary() | st.text().map(lambda text: text.encode()), st.sampled_from(CHARSETS))
def test_any_body_comes_back_as_it_came(body: bytes, charset: str) -> None:
    asked = line()
    raw = encode(asked, result(asked, 200, body, [("content-type", f"text/plain; charset={charset}")]))
    assert body_of(again(raw)) == body


ids = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.integers(1, 2**40), ids, st.text(st.characters()), st.text())
def test_ids_urls_and_messages_come_back_as_they_were(number: int, id: Any, path: str, message: str) -> None:
    asked = line(number, f"http://host/{path}", id=id)
    raw = encode(asked, result(asked, None, error=ValueError(message)))
    found = again(raw)
    assert number_of(raw) == number
    assert found.get("id") == id
    assert found["url"] == f"http://host/{path}"
    assert found["error"]["message"] == message or not message


def test_lone_surrogates_come_back() -> None:
    asked = line(1, "http://host/\ud800", id=["\udfff", "ä"])
    found = again(encode(asked, result(asked, headers=[("X", "caf\udce9")], url="http://host/")))
    assert (found["url"], found["id"]) == ("http://host/\ud800", ["\udfff", "ä"])
    assert found["headers"] == {"X": "caf\udce9"}


@given(ids, st.binary(max_size=50))
def test_figures_are_read_without_the_rest(id: Any, body: bytes) -> None:
    asked = line(5, id=id)
    raw = encode(asked, result(asked, 404, body, [("X", ',"headers":')], attempts=3, elapsed=1.5))
    found = decode_figures(raw)
    assert found is not None
    whole = again(raw)
    assert {name: found[name] for name in ("line", "status", "attempts", "elapsed", "size")} == {
        name: whole[name] for name in ("line", "status", "attempts", "elapsed", "size")
    }
    assert found.get("id") == whole.get("id")


@pytest.mark.parametrize("id", [{"a": 1, "headers": 2}, '","headers":', {"x": {"b": 1, "headers": {}}}])
def test_an_id_that_looks_like_the_rest_of_a_record_does_not_mislead(id: Any) -> None:
    asked = line(5, id=id)
    found = decode_figures(encode(asked, result(asked, 404)))
    assert found is not None
    assert (found["line"], found["id"], found["status"]) == (5, id, 404)


def test_every_shorter_record_is_none() -> None:
    raw = record(12, body="bödy".encode())
    assert decode_figures(raw) is not None
    for size in range(len(raw)):
        assert decode_figures(raw[:size]) is None
    assert decode_figures(raw[:50] + bytes(len(raw) - 52) + b"}\n") is None


@pytest.mark.parametrize("raw", [b"", b"\n", b"{}\n", b"[1]\n", b'{"line":"x"}\n', b"\xff\n", b"{" * 100_000])
def test_what_is_no_record_is_none(raw: bytes) -> None:
    assert decode(raw) is None
    assert decode_figures(raw) is None


def test_a_body_in_a_file_is_named() -> None:
    asked = line()
    raw = encode(asked, result(asked, 200, b"body"), "000000001.txt")
    assert json.loads(raw)["body_file"] == "000000001.txt"
    assert "body" not in json.loads(raw)
