"""aiobotocore against moto's server: S3 with checksums and streams, failures in botocore's words."""

import base64
import hashlib
import io
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any

import aiohttp
import pytest
from support.checks import eventually
from support.local import LocalServer, port_that_never_accepts

import wirespeed

from .scene import need, run_script, stats

aiobotocore = need("aiobotocore.session")
config = need("aiobotocore.config")
botocore = need("botocore.exceptions")
moto = need("moto.server")

KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
# It gives every request `proxy_headers={}`, without a proxy.
LANE = "proxy"

ways = pytest.mark.parametrize("way", [nullcontext, wirespeed.installed], ids=["plain", "installed"])


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    """The address of a server with no buckets of its own."""
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@asynccontextmanager
async def client_of(
    service: str, endpoint: str, way: Any = nullcontext, *lanes: str, **options: Any
) -> AsyncIterator[Any]:
    """A client that must have used the lanes."""
    context: AbstractContextManager[Any] = way()
    with context:
        settings = config.AioConfig(retries={"max_attempts": 0}, **options)
        session = aiobotocore.get_session()
        async with session.create_client(service, endpoint_url=endpoint, config=settings, **KEYS) as client:
            yield client
            used = list((client._endpoint.http_session._sessions or {}).values())
            if way is not nullcontext:
                assert all(isinstance(made, wirespeed.ClientSession) for made in used)
                if wirespeed.NATIVE and lanes:
                    (made,) = used
                    assert {name for name, count in stats(made).items() if count} == set(lanes)


@asynccontextmanager
async def bucket_of(client: Any, name: str) -> AsyncIterator[str]:
    await client.create_bucket(Bucket=name)
    yield name
    listed = await client.list_objects_v2(Bucket=name)
    for item in listed.get("Contents", ()):
        await client.delete_object(Bucket=name, Key=item["Key"])
    await client.delete_bucket(Bucket=name)


@ways
async def test_objects_are_put_listed_and_got(aws: str, way: Any) -> None:
    async with client_of("s3", aws, way, LANE) as s3, bucket_of(s3, "objects") as bucket:
        body = bytes(range(256)) * 100
        for n in range(3):
            put = await s3.put_object(Bucket=bucket, Key=f"k {n}/ü", Body=body, Metadata={"n": str(n)})
            assert put["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
        listed = await s3.list_objects_v2(Bucket=bucket, Prefix="k ")
        assert [item["Key"] for item in listed["Contents"]] == [f"k {n}/ü" for n in range(3)]
        assert [item["Size"] for item in listed["Contents"]] == [len(body)] * 3
        got = await s3.get_object(Bucket=bucket, Key="k 1/ü")
        async with got["Body"] as stream:
            assert await stream.read() == body
        assert got["Metadata"] == {"n": "1"}
        got = await s3.get_object(Bucket=bucket, Key="k 1/ü", Range="bytes=10-19")
        assert await got["Body"].read() == body[10:20]
        head = await s3.head_object(Bucket=bucket, Key="k 2/ü")
        assert head["ContentLength"] == len(body)
        pages = [
            page async for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, MaxKeys=2)
        ]
        assert [len(page["Contents"]) for page in pages] == [2, 1]


@ways
async def test_checksums_are_sent_and_validated(aws: str, way: Any) -> None:
    body = b"checked" * 20000
    crc = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
    async with client_of("s3", aws, way) as s3, bucket_of(s3, "checksums") as bucket:
        put = await s3.put_object(Bucket=bucket, Key="k", Body=body, ChecksumAlgorithm="CRC32")
        assert put["ChecksumCRC32"] == crc
        got = await s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
        assert got["ChecksumCRC32"] == crc
        # A body of its own class: it compares what was read with the checksum.
        assert "Checksum" in type(got["Body"]).__name__
        assert await got["Body"].read() == body
        # From a file the checksum follows the body, as a trailer of a chunked upload.
        await s3.put_object(Bucket=bucket, Key="f", Body=io.BytesIO(body), ChecksumAlgorithm="SHA256")
        got = await s3.get_object(Bucket=bucket, Key="f")
        assert await got["Body"].read() == body


@ways
async def test_body_that_does_not_match_its_checksum_is_refused(way: Any) -> None:
    async with LocalServer() as server:
        wrong = [("x-amz-checksum-crc32", "AAAAAA=="), ("ETag", '"x"')]
        server.routes["/bucket/k"] = lambda x: x.respond(200, b"tampered", wrong)
        async with client_of("s3", server.url().rstrip("/"), way) as s3:
            got = await s3.get_object(Bucket="bucket", Key="k")
            with pytest.raises(botocore.FlexibleChecksumError):
                await got["Body"].read()


@ways
async def test_bodies_are_streamed(aws: str, way: Any) -> None:
    body = b"line of text\n" * 80000
    async with client_of("s3", aws, way) as s3, bucket_of(s3, "streams") as bucket:
        await s3.put_object(Bucket=bucket, Key="k", Body=io.BytesIO(body))
        got = await s3.get_object(Bucket=bucket, Key="k")
        parts = [part async for part in got["Body"].iter_chunks(65536)]
        assert b"".join(parts) == body
        assert len(parts) > 10
        got = await s3.get_object(Bucket=bucket, Key="k")
        assert await got["Body"].read(13) == b"line of text\n"
        assert await got["Body"].read(4) == b"line"
        got["Body"].close()
        got = await s3.get_object(Bucket=bucket, Key="k")
        lines = 0
        async for line in got["Body"].iter_lines():
            assert line == b"line of text"
            lines += 1
        assert lines == 80000


@ways
async def test_upload_in_parts(aws: str, way: Any) -> None:
    part = b"p" * (5 * 1024 * 1024)
    async with client_of("s3", aws, way) as s3, bucket_of(s3, "parts") as bucket:
        upload = await s3.create_multipart_upload(Bucket=bucket, Key="k")
        where = {"Bucket": bucket, "Key": "k", "UploadId": upload["UploadId"]}
        done = [
            {"PartNumber": n, "ETag": (await s3.upload_part(**where, PartNumber=n, Body=body))["ETag"]}
            for n, body in ((1, part), (2, b"end"))
        ]
        await s3.complete_multipart_upload(**where, MultipartUpload={"Parts": done})
        assert (await s3.head_object(Bucket=bucket, Key="k"))["ContentLength"] == len(part) + 3


@ways
async def test_error_of_the_service_is_a_client_error(aws: str, way: Any) -> None:
    async with client_of("s3", aws, way) as s3:
        with pytest.raises(botocore.ClientError, match="NoSuchBucket"):
            await s3.get_object(Bucket="nobody-s", Key="k")
        with pytest.raises(botocore.ClientError) as caught:
            await s3.head_object(Bucket="nobody-s", Key="k")
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


@ways
async def test_other_protocols_of_the_services(aws: str, way: Any) -> None:
    """SQS speaks JSON over POST; its requests are small and many."""
    async with client_of("sqs", aws, way, LANE) as sqs:
        url = (await sqs.create_queue(QueueName="queue"))["QueueUrl"]
        for n in range(5):
            await sqs.send_message(QueueUrl=url, MessageBody=f"message {n}")
        got = await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=5)
        assert sorted(m["Body"] for m in got["Messages"]) == [f"message {n}" for n in range(5)]
        await sqs.delete_queue(QueueUrl=url)


@ways
async def test_failures_of_the_connection_have_botocore_s_classes(way: Any) -> None:
    """It finds some of them by the text of aiohttp's message."""
    async with LocalServer() as server:
        endpoint = server.url().rstrip("/")
        server.routes["/drop/k"] = server.routes["/drop"]
        server.routes["/hold/k"] = server.routes["/hold"]
        server.routes["/half/k"] = server.routes["/half"]
        async with client_of("s3", endpoint, way, read_timeout=0.2) as s3:
            with pytest.raises(botocore.ConnectionClosedError):
                await s3.get_object(Bucket="drop", Key="k")
            with pytest.raises(botocore.ReadTimeoutError):
                await s3.get_object(Bucket="hold", Key="k")
            got = await s3.get_object(Bucket="half", Key="k")
            with pytest.raises(botocore.ReadTimeoutError):
                await got["Body"].read()
            got["Body"].close()
            got = await s3.get_object(Bucket="half", Key="k")
            server.held[-1].connection.transport.abort()
            with pytest.raises(aiohttp.ClientPayloadError):  # which it lets through
                await got["Body"].read()
    async with client_of("s3", endpoint, way) as s3:
        with pytest.raises(botocore.EndpointConnectionError):
            await s3.get_object(Bucket="b", Key="k")


@ways
async def test_connecting_that_takes_too_long_is_a_connect_timeout(way: Any) -> None:
    with port_that_never_accepts() as port:
        async with client_of("s3", f"http://127.0.0.1:{port}", way, connect_timeout=0.2) as s3:
            with pytest.raises(botocore.ConnectTimeoutError):
                await s3.get_object(Bucket="b", Key="k")


@ways
async def test_failures_are_retried(way: Any) -> None:
    async with LocalServer() as server:
        answers = iter(["/drop", "status", "ok"])

        def flaky(exchange: Any) -> None:
            answer = next(answers)
            if answer == "/drop":
                exchange.connection.transport.abort()
            else:
                exchange.respond(503 if answer == "status" else 200, b"body")

        server.routes["/bucket/k"] = flaky
        endpoint = server.url().rstrip("/")
        with way():
            settings = config.AioConfig(retries={"max_attempts": 3, "mode": "standard"})
            session = aiobotocore.get_session()
            async with session.create_client("s3", endpoint_url=endpoint, config=settings, **KEYS) as s3:
                got = await s3.get_object(Bucket="bucket", Key="k")
                assert await got["Body"].read() == b"body"
                # The dropped connection was aiohttp's own to retry.
                assert got["ResponseMetadata"]["RetryAttempts"] == 1
        await eventually(lambda: len(server.exchanges) == 3)


IMPORT_ORDER = """
import asyncio, sys
for step in sys.argv[1].split():
    if step == "install":
        import wirespeed
        wirespeed.install()
    elif step == "aiobotocore":
        import aiobotocore.session, aiobotocore.config

async def main():
    client = aiobotocore.session.get_session().create_client(
        "s3", endpoint_url="http://127.0.0.1:9", region_name="us-east-1",
        aws_access_key_id="a", aws_secret_access_key="b",
        config=aiobotocore.config.AioConfig(retries={"max_attempts": 0}),
    )
    async with client as s3:
        try:
            await s3.list_buckets()
        except Exception as exc:
            print(type(exc).__name__)
        (session,) = s3._endpoint.http_session._sessions.values()
        print(isinstance(session, wirespeed.ClientSession))
        print(isinstance(session.connector, wirespeed.TCPConnector))
        print(*session.native_stats()["full"] or ["express"])

asyncio.run(main())
"""


@pytest.mark.parametrize("steps", ["install aiobotocore", "aiobotocore install"])
def test_import_order(steps: str) -> None:
    lane = LANE if wirespeed.NATIVE else "no extension"
    printed = run_script(IMPORT_ORDER, steps, AWS_EC2_METADATA_DISABLED="true").splitlines()
    assert printed == ["EndpointConnectionError", "True", "True", lane]
