"""A request of a batch is sent, and ends, as the same request by itself: over the other tables."""

import dataclasses
import importlib
import warnings
from collections.abc import Iterator
from typing import Any
from unittest import mock
from zlib import crc32

import pytest
from support.drivers import driver
from support.outcome import Case, Mismatch, Run, differences, outcome_of, render

import wirespeed
from wirespeed.batch import Result

from .tables import Asked, table

__all__ = ["driver"]

TABLES = (
    "bad_input",
    "bodies",
    "compression",
    "connections",
    "cookies",
    "full_lane",
    "hooked",
    "malformed",
    "middleware_calls",
    "middlewares",
    "redirects",
    "requests",
    "responses",
    "timeouts",
)
CARRIED = {"params", "headers", "json", "data"}


def is_carried(asked: Asked) -> bool:
    """Whether a batch can make the request: it has nothing beside what a `Request` has, and a timeout."""
    with warnings.catch_warnings():
        # Nobody closes the files that some have.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            options = asked.options(mock.MagicMock())
        except Exception:
            return False
        names = [name for name, value in options.items() if name != "timeout" and value is not None]
        is_whole = len(names) == len(options) - ("timeout" in options)
        del options
    return is_whole and CARRIED.issuperset(names)


def cases() -> Iterator[Case]:
    for name in TABLES:
        try:
            module = importlib.import_module(f".test_{name}", __package__)
        except pytest.skip.Exception:
            # A package that is optional is not there.
            continue
        for rows in [value for key, value in vars(module).items() if key.endswith("CASES")]:
            for case in rows:
                if isinstance(case.do, Asked) and is_carried(case.do) and not (case.silent and case.wire):
                    yield dataclasses.replace(case, id=f"{name}: {case.id}")


async def single(run: Run, asked: Asked) -> Any:
    async with run.session.request(asked.method, run.url(asked.path), **asked.options(run)) as resp:
        body = await resp.read()
    return described(resp.status, resp.headers, body, resp.real_url)


async def batched(run: Run, asked: Asked, **options: Any) -> Any:
    carried = asked.options(run)
    if "timeout" in carried:
        options["timeout"] = carried.pop("timeout")
    given = wirespeed.Request(asked.method, run.url(asked.path), **carried)
    async with run.session.batch([given], **options) as batch:
        (result,) = [result async for result in batch]
    return outcome(result, given)


def outcome(result: Result, given: wirespeed.Request) -> Any:
    assert result.index == 0
    assert result.attempts == 1
    assert result.request is given
    assert result.elapsed >= 0
    if result.error is not None:
        assert not result.ok
        assert result.body == b""
        assert result.error.__traceback__ is None
        raise result.error
    return described(result.status, result.headers, result.body, result.url)


def described(status: Any, headers: Any, body: Any, url: Any) -> Any:
    return [status, type(headers).__name__, list(headers.items()), type(body).__name__, body, url]


KEPT = ("probe", "connections", "wire")
"""A batch decodes whole bodies: one that cannot be decoded came whole, and its connection is kept."""


async def compare(case: Case, driver: str) -> None:
    asked: Any = case.do
    turn = crc32(case.id.encode())
    # The same without a limit, which the core's driver has ways of its own for.
    options = {"max_body": None} if turn % 2 or "9999999" in case.id else {}
    alone = dataclasses.replace(case, do=lambda run: single(run, asked))
    together = dataclasses.replace(case, do=lambda run: batched(run, asked, **options))
    reference = await outcome_of(alone, wirespeed)
    candidate = await outcome_of(together, wirespeed)
    accepted = ("warned_at", *case.ignore)
    if driver == "native" and "Can not decode" in str(reference.get("error")):
        accepted += KEPT
    different = {
        name: pair
        for name, pair in differences(reference, candidate).items()
        if not name.startswith(accepted)
    }
    if different:
        text = render(different).replace("aiohttp:  ", "single:").replace("wirespeed:", "batch: ")
        raise Mismatch(f"{case.id}:\n{text}")


@table(list({case.id: case for case in cases()}.values()))
async def test_same_as_alone(driver: str, case: Case) -> None:
    await compare(case, driver)
