"""A resolver that asks nobody."""

import asyncio
import socket
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult


class Names(AbstractResolver):
    """Every name has these addresses; 127.0.0.1 where none is given.

    Args:
        addresses: of IPv4 or IPv6.
        delay: how long it takes, in seconds.
    """

    def __init__(self, *addresses: str, delay: float = 0.0) -> None:
        self.addresses = addresses or ("127.0.0.1",)
        self.delay = delay
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        self.asked.append(host)
        if self.delay:
            await asyncio.sleep(self.delay)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in self.addresses
        ]

    async def close(self) -> None:
        """Nothing to close."""
