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


async def test_prewarming_that_takes_too_long_is_an_error() -> None:
    with port_that_never_accepts() as port:
        async with wirespeed.TCPConnector() as connector:
            with pytest.raises(aiohttp.ConnectionTimeoutError):
                await connector.prewarm(f"http://127.0.0.1:{port}", 2, timeout=Timeout(connect=SHORT))


async def test_prewarming_does_not_count_what_is_not_open_in_time() -> None:
    async with LocalServer() as server, wirespeed.TCPConnector() as connector:
        dial, dials = connector._create_connection, 0

        async def hang_from_the_second(*args: Any) -> Any:
            nonlocal dials
            dials += 1
            return await (dial(*args) if dials == 1 else asyncio.sleep(60))

        connector._create_connection = hang_from_the_second  # type: ignore[method-assign]
        assert await connector.prewarm(server.url(), 3, timeout=Timeout(connect=SHORT)) == 1


async def test_prewarming_says_that_the_connector_was_closed_meanwhile() -> None:
    with port_that_never_accepts() as port:
        connector = wirespeed.TCPConnector()
        task = asyncio.create_task(connector.prewarm(f"http://127.0.0.1:{port}", 2))
        await asyncio.sleep(SHORT)
        await connector.close()
        with pytest.raises(aiohttp.ClientConnectionError, match="closed"):
            await task
