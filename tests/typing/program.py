"""What type checkers make of a program that says `import wirespeed as aiohttp`; mypy checks this file."""

import asyncio

from prometheus_client import REGISTRY

import wirespeed as aiohttp
from wirespeed.observe import Timings
from wirespeed.observe.leaks import Leak
from wirespeed.observe.opentelemetry import Instrumentation, instrument, instrument_policies
from wirespeed.observe.prometheus import PoolCollector
from wirespeed.policy import Policies, Retry


async def main() -> None:
    timeout = aiohttp.ClientTimeout(total=3)
    async with aiohttp.ClientSession(
        timeout=timeout, strict_native=True, middlewares=[middleware]
    ) as session:
        stats: dict[str, object] = session.native_stats()
        reason: aiohttp.LaneReason | None = session.explain("GET", "http://host.example/").reason
        collector = PoolCollector(session.connector, policies=[Policies(retry=Retry())])
        collector.add_policies(Retry())
        REGISTRY.register(collector)
        metrics: Instrumentation = instrument(session.connector)
        metrics.uninstrument()
        instrument_policies(Policies(retry=Retry())).uninstrument()
        instrument_policies(Retry()).uninstrument()
        async with session.get("http://host.example/", params={"a": "1"}) as resp:
            status: int = resp.status
            queue: float = resp.timings.queue if resp.timings is not None else 0.0
            reused: bool | None = resp.connection_info.reused if resp.connection_info is not None else None
            print(queue, reused)
        print(stats, reason, status, await annotated(session, resp), await tells_of_the_pool(session))
        await fan_out(session)
    aiohttp.ClientTimeout(totl=3)  # type: ignore[call-arg]
    aiohttp.ClientSession(strict=True)  # type: ignore[call-arg]


async def tells_of_the_pool(session: aiohttp.ClientSession) -> aiohttp.PoolStats:
    tcp = aiohttp.TCPOptions(probe_after=30)
    connector = aiohttp.TCPConnector(limit=1, pool_timeout=2.0, max_waiters=3, reuse="lifo", tcp=tcp)
    try:
        resp = await session.post("http://host.example/", json={})
        timings: Timings | None = resp.timings
        print(timings)
        async with aiohttp.request("GET", "http://host.example/") as other:
            print(other.timings, aiohttp.CloseReason.IDLE_EOF in connector.stats().closed)
    except aiohttp.PoolTimeout as exc:
        task: str | None = exc.holders[0].task
        print(task, exc.limit_name, exc.limti, exc.waited)  # type: ignore[attr-defined]
    except aiohttp.PoolFull as exc:
        print(exc.pressure.in_use, exc.waiting)
    aiohttp.TCPConnector(reuse="filo")  # type: ignore[arg-type]
    aiohttp.TCPConnector(tcp="wan")  # type: ignore[arg-type]
    aiohttp.UnixConnector("/run/socket", tcp="lan")  # type: ignore[call-arg]
    leaks: list[Leak] = connector.leaks()
    print(await session.prewarm("http://host.example/", 3), [leak.report() for leak in leaks])
    return connector.stats_by_origin()["http://host.example"]


async def fan_out(session: aiohttp.ClientSession) -> None:
    """What is declared to have aiohttp's responses goes on to take what a session gives."""
    tasks = [asyncio.create_task(session.get(f"http://host.example/{number}")) for number in range(3)]
    await settle(tasks)
    responses = await asyncio.gather(*[session.get("http://host.example/") for _ in range(3)])
    await close(responses)


async def settle(tasks: list[asyncio.Task[aiohttp.ClientResponse]]) -> None:
    await asyncio.wait(tasks)


async def close(responses: list[aiohttp.ClientResponse]) -> None:
    for resp in responses:
        resp.close()


async def middleware(
    req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    return await handler(req)


async def annotated(session: aiohttp.ClientSession, resp: aiohttp.ClientResponse) -> aiohttp.FormData:
    connector: aiohttp.TCPConnector = aiohttp.TCPConnector(limit=3)
    await connector.close()
    if resp.status == aiohttp.web.HTTPOk.status_code and not session.closed:
        raise aiohttp.ClientError
    return aiohttp.FormData({"a": "1"})


if __name__ == "__main__":
    with aiohttp.installed():
        aiohttp.run(main())
