"""Other clients, each sending a workload the way its own documentation does."""

import importlib
from datetime import timedelta
from pathlib import Path
from typing import Any

from . import workloads
from .clients import Call, Client, Target
from .workloads import Kind


class HttpxClient(Client):
    """httpx over HTTP/1.1, with `AsyncClient`'s defaults but for the pool's size and the timeout.

    A thousand requests in flight pass its default timeout of 5 seconds.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._httpx: Any = importlib.import_module("httpx")
        self._client: Any = None

    async def open(self) -> Call:
        workload = self.target.workload
        size = max(100, workload.concurrency)
        context = self.target.ssl_context()
        self._client = self._httpx.AsyncClient(
            limits=self._httpx.Limits(
                max_connections=size, max_keepalive_connections=0 if workload.is_fresh else size
            ),
            timeout=workloads.TIMEOUT,
            verify=True if context is None else context,
            cookies=workloads.COOKIES if workload.kind is Kind.RICH else None,
        )
        return self._calls()[workload.kind]

    def _calls(self) -> dict[Kind, Call]:
        client, url = self._client, self.target.request_url
        timeout = self._httpx.Timeout(workloads.READ_TIMEOUT, connect=workloads.CONNECT_TIMEOUT)

        async def read() -> int:
            return len((await client.get(url)).content)

        async def decode() -> int:
            return int((await client.get(url)).json()["id"])

        async def post() -> int:
            return len((await client.post(url, json=workloads.POST_PAYLOAD)).content)

        async def rich() -> int:
            resp = await client.get(url, params=workloads.PARAMS, headers=workloads.HEADERS, timeout=timeout)
            resp.raise_for_status()
            return int(resp.json()["id"])

        return {Kind.READ: read, Kind.DECODE: decode, Kind.POST: post, Kind.RICH: rich}

    async def close(self) -> None:
        await self._client.aclose()


class PyreqwestClient(Client):
    """pyreqwest (Rust's reqwest on its own threads; their CPU time counts as the process's)."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._module: Any = importlib.import_module("pyreqwest.client")
        self._authority = None if target.cafile is None else Path(target.cafile).read_bytes()
        self._client: Any = None

    async def open(self) -> Call:
        workload = self.target.workload
        builder = self._module.ClientBuilder().max_connections(max(100, workload.concurrency))
        builder = builder.pool_max_idle_per_host(0 if workload.is_fresh else workload.concurrency)
        if self._authority is not None:
            builder = builder.add_root_certificate_pem(self._authority)
        if workload.kind is Kind.RICH:
            builder = builder.error_for_status().default_headers(
                {"Cookie": "; ".join(f"{name}={value}" for name, value in workloads.COOKIES.items())}
            )
            builder = builder.connect_timeout(timedelta(seconds=workloads.CONNECT_TIMEOUT))
            builder = builder.read_timeout(timedelta(seconds=workloads.READ_TIMEOUT))
        self._client = builder.build()
        return self._calls()[workload.kind]

    def _calls(self) -> dict[Kind, Call]:
        client, url = self._client, self.target.request_url
        timeout = timedelta(seconds=workloads.TIMEOUT)

        async def read() -> int:
            resp = await client.get(url).build().send()
            return len(await resp.bytes())

        async def decode() -> int:
            resp = await client.get(url).build().send()
            return int((await resp.json())["id"])

        async def post() -> int:
            resp = await client.post(url).body_json(workloads.POST_PAYLOAD).build().send()
            return len(await resp.bytes())

        async def rich() -> int:
            request = client.get(url).query(workloads.PARAMS).headers(workloads.HEADERS)
            resp = await request.timeout(timeout).build().send()
            return int((await resp.json())["id"])

        return {Kind.READ: read, Kind.DECODE: decode, Kind.POST: post, Kind.RICH: rich}

    async def close(self) -> None:
        await self._client.close()
