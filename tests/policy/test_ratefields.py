"""What servers say about quotas: each dialect is read, and what is broken says nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from wirespeed.policy.ratefields import Quota, parse_items, quota

NOW = 1_750_000_000.0


def told(**fields: str) -> Quota | None:
    return quota(CIMultiDict({name.replace("_", "-"): value for name, value in fields.items()}), lambda: NOW)


def test_no_fields_say_nothing():
    assert quota({}, lambda: NOW) is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"RateLimit": '"default";r=50;t=30'}, (50, 30, 0, 0)),
        ({"RateLimit": "default;r=50;t=30"}, (50, 30, 0, 0)),
        ({"RateLimit": ' "default"; r=50; t=30 '}, (50, 30, 0, 0)),
        ({"RateLimit": '"a,b;c=\\"d";t=30;pk=:Zm9v:;r=50'}, (50, 30, 0, 0)),
        ({"RateLimit": '"day";r=100;t=36000, "minute";r=5;t=20'}, (5, 20, 0, 0)),
        ({"RateLimit": '"day";r=5;t=36000, "minute";r=5;t=20'}, (5, 36000, 0, 0)),
        ({"RateLimit": '"minute";r=5;t=20, "day";r=100;t=36000'}, (5, 20, 0, 0)),
        ({"RateLimit": '"minute";r=5;t=20, "day";r=5;t=36000'}, (5, 36000, 0, 0)),
        ({"RateLimit": '"x";r=5, "minute";r=7;t=20'}, (7, 20, 0, 0)),
        ({"RateLimit": "limit=100, remaining=50, reset=30"}, (50, 30, 100, 0)),
        (
            {"ratelimit": '"a";r=1;t=2', "ratelimit_policy": '"b";q=9;w=9,"a";q=100;w=60;u="x"'},
            (1, 2, 100, 60),
        ),
        ({"ratelimit": '"a";r=1;t=2,"c";r=3;t=4', "ratelimit_policy": '"a";q=100;w=60'}, (1, 2, 100, 60)),
        ({"ratelimit": '"a";r=1;t=2', "ratelimit_policy": '"b";q=100;w=60'}, (1, 2, 0, 0)),
        ({"RateLimit_Remaining": "3", "RateLimit_Reset": "7"}, (3, 7, 0, 0)),
        ({"RateLimit_Remaining": "3", "RateLimit_Reset": "7", "RateLimit_Limit": "10"}, (3, 7, 10, 0)),
        (
            {
                "RateLimit_Remaining": "3",
                "RateLimit_Reset": "7",
                "RateLimit_Limit": "10, 10;w=1, 99;w=3600",
            },
            (3, 7, 10, 1),
        ),
        ({"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": "1750000060"}, (0, 60, 0, 0)),
        ({"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": "1750000060000"}, (0, 60, 0, 0)),
        ({"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": "60"}, (0, 60, 0, 0)),
        ({"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": "1749999999"}, (0, -1, 0, 0)),
        ({"X_Rate_Limit_Remaining": "4", "X_Rate_Limit_Reset": "1750000001.5"}, (4, 1.5, 0, 0)),
        ({"RateLimit": "x", "X_RateLimit_Remaining": "1", "X_RateLimit_Reset": "2"}, (1, 2, 0, 0)),
        ({"RateLimit_Remaining": "x", "X_RateLimit_Remaining": "1", "X_RateLimit_Reset": "2"}, (1, 2, 0, 0)),
    ],
)
def test_dialects_are_read(fields, expected):
    assert told(**fields) == pytest.approx(expected)


@pytest.mark.parametrize(
    "value",
    [
        "",
        '"a"',
        '"a";r=1',
        '"a";t=1',
        '"a";r=-1;t=1',
        '"a";r=1;t=-1',
        '"a";r=nan;t=1',
        '"a";r=1;t=inf',
        '"a";r=1;t=1e9',
        '"a";r=٣;t=1',
        '"a";r=3;t=٣',
        '"a";r=1;t=' + "9" * 16,
        '"a";r=1;t=1' + " " * 10_000,
        '"' * 1000,
        '"' + "\\" * 1000,
        ";=," * 3000,
        "remaining=1, reset=",
        "remaining=, reset=1",
        "remaining, reset",
    ],
)
def test_broken_fields_say_nothing(value):
    assert told(RateLimit=value) is None


@pytest.mark.parametrize("value", ["-1", "x", "", "nan", "٣", "9" * 10_000])
@pytest.mark.parametrize("name", ["X_RateLimit_Remaining", "X_RateLimit_Reset"])
def test_broken_numbers_say_nothing(name, value):
    assert told(**{"X_RateLimit_Remaining": "1", "X_RateLimit_Reset": "1"} | {name: value}) is None


@pytest.mark.parametrize("value", ["x", "", ",", "x;w=1", "-5", '"' * 100, "1" * 10_000])
def test_broken_limits_are_not_known(value):
    found = told(RateLimit_Remaining="1", RateLimit_Reset="1", RateLimit_Limit=value)
    assert found is not None
    assert found.limit == 0


def test_broken_policies_are_not_known():
    assert told(RateLimit='"a";r=1;t=2', RateLimit_Policy='"a";q=x;w=-1') == (1, 2, 0, 0)
    assert told(RateLimit='"a";r=1;t=2', RateLimit_Policy='"a";q=1;w=1' + " " * 10_000) == (1, 2, 0, 0)


noise = st.text(alphabet='"\\;,=rtqw 0123456789-.aé٣\x00', max_size=60)


@given(noise, noise)
def test_whatever_stands_there_never_raises(one, other):
    for found in (
        told(RateLimit=one, RateLimit_Policy=other),
        told(RateLimit_Remaining=one, RateLimit_Reset=other, RateLimit_Limit=other),
        told(X_RateLimit_Remaining="1", X_RateLimit_Reset="1", X_RateLimit_Limit=other),
    ):
        assert found is None or found.remaining >= 0


@given(noise)
def test_structure_is_found_in_whatever_stands_there(text):
    for name, parameters in parse_items(text):
        assert isinstance(name, str)
        assert all(isinstance(value, str) for value in parameters.values())


def test_structured_fields_are_split():
    assert parse_items('a;b=1;c, "d e";f="g,h"') == [("a", {"b": "1"}), ("d e", {"f": "g,h"})]
