"""Request heads: the exact bytes, and what is refused before a byte is sent."""

import string

import pytest
from aiohttp.http_writer import _serialize_headers
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, istr

from wirespeed._core.head import field_lines, is_token, request_line

TCHARS = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
CONTROLS = [chr(c) for c in [*range(0x20), 0x7F] if chr(c) != "\t"]
REFUSAL = "Forbidden control character detected in headers. Potential header injection attack."

names = st.text(TCHARS, min_size=1, max_size=20)
# Any text that is not a control character; surrogates included.
values = st.text(st.characters(exclude_categories=["Cc"]) | st.just("\t"), max_size=40)


def test_request_line_is_written_exactly() -> None:
    assert request_line("GET", "/a?b=c", 1) == b"GET /a?b=c HTTP/1.1\r\n"
    assert request_line("OPTIONS", "*", 0) == b"OPTIONS * HTTP/1.0\r\n"


def test_request_target_beyond_ascii_is_written_as_utf8() -> None:
    assert request_line("GET", "/ä", 1) == b"GET /\xc3\xa4 HTTP/1.1\r\n"


def test_field_lines_are_written_in_the_order_given() -> None:
    fields = [("B", "2"), ("A", "1"), ("B", "3")]
    assert field_lines(fields) == b"B: 2\r\nA: 1\r\nB: 3\r\n"


@pytest.mark.parametrize("items", [[], (), iter(())], ids=["list", "tuple", "iterator"])
def test_no_fields_make_no_lines(items: object) -> None:
    assert field_lines(items) == b""  # type: ignore[arg-type]


def test_items_of_a_multidict_are_taken_as_they_are() -> None:
    headers = CIMultiDict([("Host", "a"), ("X", "1"), ("x", "2")])
    assert field_lines(headers.items()) == b"Host: a\r\nX: 1\r\nx: 2\r\n"


@pytest.mark.parametrize("char", CONTROLS, ids=repr)
def test_control_character_is_refused_everywhere(char: str) -> None:
    for text in (f"{char}a", f"a{char}b", f"a{char}", char):
        with pytest.raises(ValueError, match=REFUSAL):
            request_line(text, "/", 1)
        with pytest.raises(ValueError, match=REFUSAL):
            request_line("GET", text, 1)
        with pytest.raises(ValueError, match=REFUSAL):
            field_lines([(text, "value")])
        with pytest.raises(ValueError, match=REFUSAL):
            field_lines([("Name", "fine"), ("Name", text)])


@pytest.mark.parametrize("value", ["a\r\nX: injected", "\U00010000\r\n", "ä\nb", "\ud800\r\nX: 1"], ids=ascii)
def test_line_end_is_refused_beside_any_other_character(value: str) -> None:
    with pytest.raises(ValueError, match=REFUSAL):
        field_lines([("Name", value)])


def test_tab_is_allowed_in_values() -> None:
    assert field_lines([("X", "a\tb")]) == b"X: a\tb\r\n"


def test_empty_value_is_allowed() -> None:
    assert field_lines([("X", "")]) == b"X: \r\n"


@pytest.mark.parametrize("bad", [b"bytes", 1, None, 1.5, ["a"], object()], ids=repr)
def test_name_or_value_that_is_not_a_str_is_refused_as_aiohttp_does(bad: object) -> None:
    for fields in ([(bad, "value")], [("Name", bad)]):
        with pytest.raises(TypeError, match="Cannot serialize non-str key"):
            field_lines(fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [None, b"GET", 1])
def test_method_and_target_must_be_str(bad: object) -> None:
    with pytest.raises(TypeError):
        request_line(bad, "/", 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        request_line("GET", bad, 1)  # type: ignore[arg-type]


def test_lone_surrogate_in_a_value_is_left_out_as_aiohttp_does() -> None:
    assert field_lines([("X", "a\ud800b\udfff")]) == b"X: ab\r\n"


def test_lone_surrogate_in_the_target_is_left_out() -> None:
    assert request_line("GET", "/\ud800a", 1) == b"GET /a HTTP/1.1\r\n"


def test_str_subclasses_are_written_as_str() -> None:
    class Loud(str):
        def __str__(self) -> str:
            return "other"

    assert field_lines([(istr("X-Name"), istr("Value"))]) == b"X-Name: Value\r\n"
    assert field_lines([("X", Loud("plain"))]) in (b"X: plain\r\n", b"X: other\r\n")


BAD_NAMES = [
    "",
    " ",
    "a b",
    "a:",
    ":a",
    "a\t",
    " a",
    "a ",
    "a(b)",
    "a,b",
    'a"',
    "a/b",
    "ä",
    "\xa0",
    "\ud800",
    "a@",
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_name_that_is_not_a_token_is_refused(name: str) -> None:
    assert not is_token(name)
    with pytest.raises(ValueError, match=r"not a token|control character"):
        field_lines([(name, "value")])


@pytest.mark.parametrize("items", [["a"], [("a",)], [("a", "b", "c")], [1]], ids=repr)
def test_items_that_are_not_pairs_are_refused(items: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        field_lines(items)  # type: ignore[arg-type]


def test_head_larger_than_any_buffer_is_written_whole() -> None:
    fields = [(f"X-{i}", "v" * 1000) for i in range(100)]
    assert field_lines(fields) == b"".join(b"X-%d: %b\r\n" % (i, b"v" * 1000) for i in range(100))


@given(st.text(max_size=20) | names)
def test_token_is_what_rfc_9110_says(name: str) -> None:
    assert is_token(name) == (name != "" and set(name) <= set(TCHARS))


@given(st.lists(st.tuples(names | names.map(istr), values), max_size=8))
def test_valid_fields_are_written_as_aiohttp_writes_them(fields: list[tuple[str, str]]) -> None:
    line = "GET / HTTP/1.1"
    expected: bytes = _serialize_headers(line, CIMultiDict(fields))
    assert request_line("GET", "/", 1) + field_lines(fields) + b"\r\n" == expected


@given(names, st.text(max_size=20))
def test_values_are_refused_when_aiohttp_refuses_them(name: str, value: str) -> None:
    def written(write: object) -> object:
        try:
            return write()  # type: ignore[operator]
        except ValueError as exc:
            return str(exc)

    expected = written(lambda: _serialize_headers("", CIMultiDict([(name, value)]))[2:-2])
    assert written(lambda: field_lines([(name, value)])) == expected
