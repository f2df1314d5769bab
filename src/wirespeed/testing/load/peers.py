"""Other clients, each sending a workload the way its own documentation does."""

import importlib
from datetime import timedelta
from pathlib import Path
from typing import Any

from . import workloads
from .clients import Call, Client, Target
from .workloads import Kind

_COOKIE_HEADER = "; ".join(f"{name}={value}" for name, value in workloads.COOKIES.items())
"""For clients whose jar cannot be filled beforehand: a header costs them less than a jar would."""


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


class NiquestsClient(Client):
    """niquests (requests' API over urllib3.future), told that the server speaks HTTP/1.1."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._niquests: Any = importlib.import_module("niquests")
        self._session: Any = None

    async def open(self) -> Call:
        workload = self.target.workload
        self._session = self._niquests.AsyncSession(
            pool_connections=1,
            pool_maxsize=max(100, workload.concurrency),
            disable_http2=True,
            disable_http3=True,
            cookies=workloads.COOKIES if workload.kind is Kind.RICH else None,
        )
        if workload.is_fresh:
            self._session.headers["Connection"] = "close"
        return self._calls()[workload.kind]

    def _calls(self) -> dict[Kind, Call]:
        session, url = self._session, self.target.request_url
        timeout = (workloads.CONNECT_TIMEOUT, workloads.READ_TIMEOUT, workloads.TIMEOUT)
        cafile = self.target.cafile  # with each request: $REQUESTS_CA_BUNDLE goes before the session's

        async def read() -> int:
            return len((await session.get(url, verify=cafile)).content)

        async def decode() -> int:
            return int((await session.get(url)).json()["id"])

        async def post() -> int:
            return len((await session.post(url, json=workloads.POST_PAYLOAD)).content)

        async def rich() -> int:
            resp = await session.get(url, params=workloads.PARAMS, headers=workloads.HEADERS, timeout=timeout)
            resp.raise_for_status()
            return int(resp.json()["id"])

        return {Kind.READ: read, Kind.DECODE: decode, Kind.POST: post, Kind.RICH: rich}

    async def close(self) -> None:
        await self._session.close()


class AiosonicClient(Client):
    """aiosonic, with a pool as large as the concurrency; it waits for a free connection."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._aiosonic: Any = importlib.import_module("aiosonic")
        self._connector: Any = None
        self._client: Any = None

    async def open(self) -> Call:
        workload = self.target.workload
        pool = {"size": max(100, workload.concurrency)}
        if workload.is_fresh:
            pool["max_conn_requests"] = 0  # it takes a connection again that has served no more than this
        self._connector = importlib.import_module("aiosonic.connectors").TCPConnector({":default": pool})
        self._client = self._aiosonic.HTTPClient(connector=self._connector)
        return self._calls()[workload.kind]

    def _calls(self) -> dict[Kind, Call]:
        client, url = self._client, self.target.request_url
        context = self.target.ssl_context()
        headers = {**workloads.HEADERS, "Cookie": _COOKIE_HEADER}
        timeouts = importlib.import_module("aiosonic.timeout").Timeouts(
            sock_connect=workloads.CONNECT_TIMEOUT,
            sock_read=workloads.READ_TIMEOUT,
            request_timeout=workloads.TIMEOUT,
        )

        async def read() -> int:
            return len(await (await client.get(url, ssl=context)).content())

        async def decode() -> int:
            return int((await (await client.get(url)).json())["id"])

        async def post() -> int:
            return len(await (await client.post(url, json=workloads.POST_PAYLOAD)).content())

        async def rich() -> int:
            resp = await client.get(url, params=workloads.PARAMS, headers=headers, timeouts=timeouts)
            resp.raise_for_status()
            return int((await resp.json())["id"])

        return {Kind.READ: read, Kind.DECODE: decode, Kind.POST: post, Kind.RICH: rich}

    async def close(self) -> None:
        await self._connector.cleanup()


class CurlCffiClient(Client):
    """curl_cffi (libcurl on the loop's readers and writers), with as many handles as requests in flight."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._curl: Any = importlib.import_module("curl_cffi")
        self._session: Any = None

    async def open(self) -> Call:
        workload = self.target.workload
        self._session = self._curl.AsyncSession(
            max_clients=max(100, workload.concurrency),
            verify=self.target.cafile or True,
            cookies=workloads.COOKIES if workload.kind is Kind.RICH else None,
            raise_for_status=workload.kind is Kind.RICH,
            curl_options={self._curl.CurlOpt.FORBID_REUSE: 1} if workload.is_fresh else None,
        )
        return self._calls()[workload.kind]

    def _calls(self) -> dict[Kind, Call]:
        session, url = self._session, self.target.request_url
        timeout = (workloads.CONNECT_TIMEOUT, workloads.READ_TIMEOUT)

        async def read() -> int:
            return len((await session.get(url)).content)

        async def decode() -> int:
            return int((await session.get(url)).json()["id"])

        async def post() -> int:
            return len((await session.post(url, json=workloads.POST_PAYLOAD)).content)

        async def rich() -> int:
            resp = await session.get(url, params=workloads.PARAMS, headers=workloads.HEADERS, timeout=timeout)
            return int(resp.json()["id"])

        return {Kind.READ: read, Kind.DECODE: decode, Kind.POST: post, Kind.RICH: rich}

    async def close(self) -> None:
        await self._session.close()


class WreqClient(Client):
    """wreq, rnet until its version 3 (Rust, on its own threads; their CPU time counts as the process's)."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._wreq: Any = importlib.import_module("wreq")
        self._client: Any = None

    async def open(self) -> Call:
        workload, wreq = self.target.workload, self._wreq
        settings: dict[str, Any] = {
            "pool_max_idle_per_host": 0 if workload.is_fresh else max(100, workload.concurrency)
        }
        if self.target.cafile is not None:
            settings["tls_verify"] = Path(self.target.cafile)
        if workload.kind is Kind.RICH:
            jar = wreq.Jar()
            for name, value in workloads.COOKIES.items():
                jar.add(f"{name}={value}", self.target.url)
            settings |= {
                "cookie_provider": jar,
                "raise_for_status": True,
                "connect_timeout": timedelta(seconds=workloads.CONNECT_TIMEOUT),
            }
        self._client = wreq.Client(**settings)
        return self._calls()[workload.kind]

    def _calls(self) -> dict[Kind, Call]:
        client, url = self._client, self.target.request_url
        total, reading = timedelta(seconds=workloads.TIMEOUT), timedelta(seconds=workloads.READ_TIMEOUT)

        async def read() -> int:
            async with client.get(url) as resp:
                return len(await resp.bytes())

        async def decode() -> int:
            async with client.get(url) as resp:
                return int((await resp.json())["id"])

        async def post() -> int:
            async with client.post(url, json=workloads.POST_PAYLOAD) as resp:
                return len(await resp.bytes())

        async def rich() -> int:
            async with client.get(
                url,
                query=workloads.PARAMS,
                headers=workloads.HEADERS,
                timeout=total,
                read_timeout=reading,
            ) as resp:
                return int((await resp.json())["id"])

        return {Kind.READ: read, Kind.DECODE: decode, Kind.POST: post, Kind.RICH: rich}

    async def close(self) -> None:
        self._client.close()


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
            builder = builder.error_for_status().default_headers({"Cookie": _COOKIE_HEADER})
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
