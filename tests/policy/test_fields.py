"""Retry-After, and the numbers and dates of fields: what is valid is read, all else is as good as absent."""

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from wirespeed.policy.fields import http_date, number, retry_after

NOW = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine that is far from UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        _reread_zone()
        yield
    _reread_zone()


def _reread_zone() -> None:
    if hasattr(time, "tzset"):
        time.tzset()


def asked(value: str) -> float | None:
    return retry_after(CIMultiDict({"retry-after": value}), NOW)


def test_no_field_asks_for_nothing():
    assert retry_after({}, NOW) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120.0), ("0", 0.0), (" 7\t", 7.0), ("1.5", 1.5), ("9" * 15, 999999999999999.0)],
)
def test_seconds_are_read(value, seconds):
    assert asked(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "Sun, 06 Nov 1994 08:50:37 GMT",
        "Sunday, 06-Nov-94 08:50:37 GMT",
        "Sun Nov  6 08:50:37 1994",
        " Sun, 06 Nov 1994 08:50:37 GMT ",
    ],
)
def test_each_form_of_a_date_is_seconds_from_now(value, tokyo):
    assert asked(value) == 60.0


def test_date_that_has_passed_is_now():
    assert asked("Sun, 06 Nov 1994 08:49:36 GMT") == 0.0


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "-1",
        "+1",
        "nan",
        "inf",
        "1e3",
        "1_000",
        "0x10",
        "1.",
        ".5",
        "٣",
        "\uff11\uff12",
        "9" * 16,
        "9" * 10_000,
        "x" * 10_000,
        "soon",
        "1, 2",
        "Sun, 99 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 +9999999",
        "Sun, 06 Nov 99999999999 08:49:37 GMT",
        "Sun, ٠٦ Nov 1994 08:49:37 GMT",
        "\x00",
    ],
)
def test_broken_values_ask_for_nothing(value):
    assert asked(value) is None


@given(st.text(max_size=80))
def test_whatever_stands_there_never_raises(value):
    seconds = asked(value)
    assert seconds is None or 0.0 <= seconds < 1e15
    http_date(value)


@given(
    st.from_regex(
        r"[A-Z][a-z]{2}, [0-9]{1,2} [A-Z][a-z]{2} [0-9]{1,6} [0-9:]{1,9} [-+A-Z0-9]{0,8}", fullmatch=True
    )
)
def test_whatever_looks_like_a_date_never_raises(value):
    seconds = asked(value)
    assert seconds is None or 0.0 <= seconds < 1e15


def test_number_of_nothing_is_none():
    assert number(None) is None
