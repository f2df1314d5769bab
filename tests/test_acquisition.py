"""How the native connectors get connections: prewarming, what failed dials leave behind, who is told what."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.checks import nothing_left
from support.local import LocalServer, port_that_never_accepts

import wirespeed

pytestmark = pytest.mark.skipif(
    not wirespeed.NATIVE, reason="the fallback's connectors have a file of their own"
)

Timeout = aiohttp.ClientTimeout
SHORT = 0.05


# Prewarming


async def test_prewarming_does_not_dial_on_when_dials_fail_at_once(tmp_path: Path) -> None:
    """On Unix sockets a refusal needs no round of the loop: the slot is free again before the next look."""
    connector = wirespeed.UnixConnector(str(tmp_path / "nobody"))
    async with wirespeed.ClientSession(connector=connector) as session:
        dial, dials = connector._create_connection, 0

        async def count(*args: Any) -> Any:
            nonlocal dials
            dials += 1
            if dials > 10:
                # Not to the end of memory.
                raise KeyboardInterrupt
            return await dial(*args)

        connector._create_connection = count  # type: ignore[method-assign]
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.prewarm("http://localhost/", 3)
        assert dials == 3
        assert connector.stats().dial_failures == 3


async def test_prewarming_again_keeps_the_limit_of_the_host() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit_per_host=2)
        async with wirespeed.ClientSession(connector=connector) as session:
            for _ in range(3):
                assert await session.prewarm(server.url(), 5) == 2
            assert connector.stats().created == 2


async def test_prewarming_does_not_replace_what_is_open() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(max_open=2)
        async with wirespeed.ClientSession(connector=connector) as session:
            for _ in range(3):
                assert await session.prewarm(server.url(), 5) == 2
            stats = connector.stats()
            assert (stats.created, stats.closed) == (2, {})
