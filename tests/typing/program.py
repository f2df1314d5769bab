"""What type checkers make of a program that says `import wirespeed as aiohttp`; mypy checks this file."""

from prometheus_client import REGISTRY

import wirespeed as aiohttp
from wirespeed.observe.opentelemetry import Instrumentation, instrument
from wirespeed.observe.prometheus import PoolCollector


async def main() -> None:
    timeout = aiohttp.ClientTimeout(total=3)
    async with aiohttp.ClientSession(timeout=timeout, strict_native=True) as session:
        stats: dict[str, object] = session.native_stats()
        reason: aiohttp.LaneReason | None = session.explain("GET", "http://host.example/").reason
        REGISTRY.register(PoolCollector(session.connector))
        metrics: Instrumentation = instrument(session.connector)
        metrics.uninstrument()
        async with session.get("http://host.example/", params={"a": "1"}) as resp:
            status: int = resp.status
        print(stats, reason, status, await annotated(session, resp))
    aiohttp.ClientTimeout(totl=3)  # type: ignore[call-arg]
    aiohttp.ClientSession(strict=True)  # type: ignore[call-arg]


async def annotated(session: aiohttp.ClientSession, resp: aiohttp.ClientResponse) -> aiohttp.FormData:
    connector: aiohttp.TCPConnector = aiohttp.TCPConnector(limit=3)
    await connector.close()
    if resp.status == aiohttp.web.HTTPOk.status_code and not session.closed:
        raise aiohttp.ClientError
    return aiohttp.FormData({"a": "1"})


if __name__ == "__main__":
    with aiohttp.installed():
        aiohttp.run(main())
