"""Other clients, each sending a workload the way its own documentation does."""

import abc
import importlib
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from . import workloads
from .clients import Call, Client, Target
from .workloads import Kind, Workload

_COOKIE_HEADER = "; ".join(f"{name}={value}" for name, value in workloads.COOKIES.items())
"""For clients whose jar cannot be filled beforehand: a header costs them less than a jar would."""


class _Peer(Client):
    """A client of a module, which is imported when it is wanted."""

    MODULE: ClassVar[str]

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._module: Any = importlib.import_module(self.MODULE)
        self._client: Any = None

    async def open(self) -> Call:
        self._client = self._new_client()
        return self._calls()[self.target.workload.plain_kind]

    @abc.abstractmethod
    def _new_client(self) -> Any:
        """Make what keeps the connections."""

    @abc.abstractmethod
    def _calls(self) -> dict[Kind, Call]:
        """Define how each kind of request is sent."""

    async def close(self) -> None:
        await self._client.close()


def _cookies(workload: Workload) -> dict[str, str] | None:
    return workloads.COOKIES if workload.kind is Kind.RICH else None


def _calls_of_requests(client: Any, url: str, timeout: Any, **options: Any) -> dict[Kind, Call]:
    """Define the calls of a client with requests' API, but for its being awaited.

    Args:
        client: the client.
        url: where the requests go.
        timeout: of a rich request, as the client takes it.
        options: of each request.
    """

    async def read() -> int:
        return len((await client.get(url, **options)).content)

    async def decode() -> int:
        return int((await client.get(url, **options)).json()["id"])

    async def post() -> int:
        return len((await client.post(url, json=workloads.POST_PAYLOAD, **options)).content)

    async def rich() -> int:
        resp = await client.get(
            url, params=workloads.PARAMS, headers=workloads.HEADERS, timeout=timeout, **options
        )
        resp.raise_for_status()
        return int(resp.json()["id"])

    return {Kind.READ: read, Kind.DECODE: decode, Kind.POST: post, Kind.RICH: rich}


class HttpxClient(_Peer):
    """httpx over HTTP/1.1, with `AsyncClient`'s defaults but for the pool's size and the timeout.

    A thousand requests in flight pass its default timeout of 5 seconds.
    """

    MODULE = "httpx"

    def _new_client(self) -> Any:
        workload, context = self.target.workload, self.target.ssl_context()
        size = workload.pool_size
        return self._module.AsyncClient(
            limits=self._module.Limits(
                max_connections=size, max_keepalive_connections=0 if workload.is_fresh else size
            ),
            timeout=workloads.TIMEOUT,
            verify=True if context is None else context,
            cookies=_cookies(workload),
        )

    def _calls(self) -> dict[Kind, Call]:
        timeout = self._module.Timeout(workloads.READ_TIMEOUT, connect=workloads.CONNECT_TIMEOUT)
        return _calls_of_requests(self._client, self.target.request_url, timeout)

    async def close(self) -> None:
        await self._client.aclose()


class NiquestsClient(_Peer):
    """niquests (requests' API over urllib3.future), told that the server speaks HTTP/1.1."""

    MODULE = "niquests"

    def _new_client(self) -> Any:
        workload = self.target.workload
        session = self._module.AsyncSession(
            pool_connections=1,
            pool_maxsize=workload.pool_size,
            disable_http2=True,
            disable_http3=True,
            cookies=_cookies(workload),
        )
        if workload.is_fresh:
            session.headers["Connection"] = "close"
        return session

    def _calls(self) -> dict[Kind, Call]:
        timeout = (workloads.CONNECT_TIMEOUT, workloads.READ_TIMEOUT, workloads.TIMEOUT)
        # With each request: $REQUESTS_CA_BUNDLE goes before the session's.
        return _calls_of_requests(self._client, self.target.request_url, timeout, verify=self.target.cafile)


class AiosonicClient(_Peer):
    """aiosonic, with a pool as large as the concurrency; it waits for a free connection."""

    MODULE = "aiosonic"

    def _new_client(self) -> Any:
        workload = self.target.workload
        pool = {"size": workload.pool_size}
        if workload.is_fresh:
            pool["max_conn_requests"] = 0  # it takes a connection again that has served no more than this
        connector = importlib.import_module("aiosonic.connectors").TCPConnector({":default": pool})
        return self._module.HTTPClient(connector=connector)

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
        await self._client.connector.cleanup()


class CurlCffiClient(_Peer):
    """curl_cffi (libcurl on the loop's readers and writers), with as many handles as requests in flight."""

    MODULE = "curl_cffi"

    def _new_client(self) -> Any:
        workload = self.target.workload
        return self._module.AsyncSession(
            max_clients=workload.pool_size,
            verify=self.target.cafile or True,
            cookies=_cookies(workload),
            curl_options={self._module.CurlOpt.FORBID_REUSE: 1} if workload.is_fresh else None,
        )

    def _calls(self) -> dict[Kind, Call]:
        timeout = (workloads.CONNECT_TIMEOUT, workloads.READ_TIMEOUT)
        return _calls_of_requests(self._client, self.target.request_url, timeout)


class WreqClient(_Peer):
    """wreq, rnet until its version 3 (Rust, on its own threads; their CPU time counts as the process's)."""

    MODULE = "wreq"

    def _new_client(self) -> Any:
        workload, wreq = self.target.workload, self._module
        settings: dict[str, Any] = {"pool_max_idle_per_host": 0 if workload.is_fresh else workload.pool_size}
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
        return wreq.Client(**settings)

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


class PyreqwestClient(_Peer):
    """pyreqwest (Rust's reqwest on its own threads; their CPU time counts as the process's)."""

    MODULE = "pyreqwest.client"

    def _new_client(self) -> Any:
        workload = self.target.workload
        builder = self._module.ClientBuilder().max_connections(workload.pool_size)
        builder = builder.pool_max_idle_per_host(0 if workload.is_fresh else workload.concurrency)
        if self.target.cafile is not None:
            builder = builder.add_root_certificate_pem(Path(self.target.cafile).read_bytes())
        if workload.kind is Kind.RICH:
            builder = builder.error_for_status().default_headers({"Cookie": _COOKIE_HEADER})
            builder = builder.connect_timeout(timedelta(seconds=workloads.CONNECT_TIMEOUT))
            builder = builder.read_timeout(timedelta(seconds=workloads.READ_TIMEOUT))
        return builder.build()

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
