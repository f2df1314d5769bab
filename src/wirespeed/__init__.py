"""wirespeed: aiohttp's client API on a native core.

`import wirespeed as aiohttp` works for a whole program: the names below are ours, and
every other name resolves to aiohttp's own object. aiohttp's submodules are attributes; they cannot be
imported as `wirespeed.<name>`.
"""

import importlib
from typing import TYPE_CHECKING, Any

import aiohttp as _aiohttp

from ._switch import NATIVE as NATIVE
from ._version import __version__ as __version__
from .batch import Batch as Batch
from .batch import BodyTooLarge as BodyTooLarge
from .batch import Progress as Progress
from .batch import Request as Request
from .batch import Result as Result
from .client import ClientSession as ClientSession
from .client import request as request
from .lanes import FullLaneError as FullLaneError
from .lanes import LaneReason as LaneReason
from .loops import new_event_loop as new_event_loop
from .loops import run as run
from .observe import CloseReason as CloseReason
from .observe import PoolStats as PoolStats
from .patching import install as install
from .patching import installed as installed
from .patching import uninstall as uninstall
from .pooling import PoolFull as PoolFull
from .pooling import PoolTimeout as PoolTimeout
from .sockets import TCPOptions as TCPOptions

if TYPE_CHECKING or NATIVE:
    from .connector import TCPConnector as TCPConnector
    from .connector import UnixConnector as UnixConnector
else:
    from .fallback import TCPConnector, UnixConnector

if not TYPE_CHECKING:
    if NATIVE:
        from .response import ClientResponse
    else:
        from .fallback import ClientResponse
else:
    # For type checkers, too: what aiohttp's methods are declared to return.
    from aiohttp import ClientResponse as ClientResponse

if TYPE_CHECKING:
    from aiohttp import (
        EMPTY_PAYLOAD as EMPTY_PAYLOAD,
    )
    from aiohttp import (
        PAYLOAD_REGISTRY as PAYLOAD_REGISTRY,
    )
    from aiohttp import (
        AddrInfoType as AddrInfoType,
    )
    from aiohttp import (
        AsyncIterablePayload as AsyncIterablePayload,
    )
    from aiohttp import (
        AsyncResolver as AsyncResolver,
    )
    from aiohttp import (
        BadContentDispositionHeader as BadContentDispositionHeader,
    )
    from aiohttp import (
        BadContentDispositionParam as BadContentDispositionParam,
    )
    from aiohttp import (
        BaseConnector as BaseConnector,
    )
    from aiohttp import (
        BasicAuth as BasicAuth,
    )
    from aiohttp import (
        BodyPartReader as BodyPartReader,
    )
    from aiohttp import (
        BufferedReaderPayload as BufferedReaderPayload,
    )
    from aiohttp import (
        BytesIOPayload as BytesIOPayload,
    )
    from aiohttp import (
        BytesPayload as BytesPayload,
    )
    from aiohttp import (
        ChainMapProxy as ChainMapProxy,
    )
    from aiohttp import (
        ClientConnectionError as ClientConnectionError,
    )
    from aiohttp import (
        ClientConnectionResetError as ClientConnectionResetError,
    )
    from aiohttp import (
        ClientConnectorCertificateError as ClientConnectorCertificateError,
    )
    from aiohttp import (
        ClientConnectorDNSError as ClientConnectorDNSError,
    )
    from aiohttp import (
        ClientConnectorError as ClientConnectorError,
    )
    from aiohttp import (
        ClientConnectorSSLError as ClientConnectorSSLError,
    )
    from aiohttp import (
        ClientError as ClientError,
    )
    from aiohttp import (
        ClientHandlerType as ClientHandlerType,
    )
    from aiohttp import (
        ClientHttpProxyError as ClientHttpProxyError,
    )
    from aiohttp import (
        ClientMiddlewareType as ClientMiddlewareType,
    )
    from aiohttp import (
        ClientOSError as ClientOSError,
    )
    from aiohttp import (
        ClientPayloadError as ClientPayloadError,
    )
    from aiohttp import (
        ClientProxyConnectionError as ClientProxyConnectionError,
    )
    from aiohttp import (
        ClientRequest as ClientRequest,
    )
    from aiohttp import (
        ClientResponseError as ClientResponseError,
    )
    from aiohttp import (
        ClientSSLError as ClientSSLError,
    )
    from aiohttp import (
        ClientTimeout as ClientTimeout,
    )
    from aiohttp import (
        ClientWebSocketResponse as ClientWebSocketResponse,
    )
    from aiohttp import (
        ClientWSTimeout as ClientWSTimeout,
    )
    from aiohttp import (
        ConnectionTimeoutError as ConnectionTimeoutError,
    )
    from aiohttp import (
        ContentTypeError as ContentTypeError,
    )
    from aiohttp import (
        CookieJar as CookieJar,
    )
    from aiohttp import (
        DataQueue as DataQueue,
    )
    from aiohttp import (
        DefaultResolver as DefaultResolver,
    )
    from aiohttp import (
        DigestAuthMiddleware as DigestAuthMiddleware,
    )
    from aiohttp import (
        DummyCookieJar as DummyCookieJar,
    )
    from aiohttp import (
        EofStream as EofStream,
    )
    from aiohttp import (
        ETag as ETag,
    )
    from aiohttp import (
        Fingerprint as Fingerprint,
    )
    from aiohttp import (
        FlowControlDataQueue as FlowControlDataQueue,
    )
    from aiohttp import (
        FormData as FormData,
    )
    from aiohttp import (
        GunicornUVLoopWebWorker as GunicornUVLoopWebWorker,
    )
    from aiohttp import (
        GunicornWebWorker as GunicornWebWorker,
    )
    from aiohttp import (
        HttpVersion as HttpVersion,
    )
    from aiohttp import (
        HttpVersion10 as HttpVersion10,
    )
    from aiohttp import (
        HttpVersion11 as HttpVersion11,
    )
    from aiohttp import (
        InvalidURL as InvalidURL,
    )
    from aiohttp import (
        InvalidUrlClientError as InvalidUrlClientError,
    )
    from aiohttp import (
        InvalidUrlRedirectClientError as InvalidUrlRedirectClientError,
    )
    from aiohttp import (
        IOBasePayload as IOBasePayload,
    )
    from aiohttp import (
        JsonPayload as JsonPayload,
    )
    from aiohttp import (
        MultipartReader as MultipartReader,
    )
    from aiohttp import (
        MultipartWriter as MultipartWriter,
    )
    from aiohttp import (
        NamedPipeConnector as NamedPipeConnector,
    )
    from aiohttp import (
        NonHttpUrlClientError as NonHttpUrlClientError,
    )
    from aiohttp import (
        NonHttpUrlRedirectClientError as NonHttpUrlRedirectClientError,
    )
    from aiohttp import (
        Payload as Payload,
    )
    from aiohttp import (
        RedirectClientError as RedirectClientError,
    )
    from aiohttp import (
        RequestInfo as RequestInfo,
    )
    from aiohttp import (
        ServerConnectionError as ServerConnectionError,
    )
    from aiohttp import (
        ServerDisconnectedError as ServerDisconnectedError,
    )
    from aiohttp import (
        ServerFingerprintMismatch as ServerFingerprintMismatch,
    )
    from aiohttp import (
        ServerTimeoutError as ServerTimeoutError,
    )
    from aiohttp import (
        SocketFactoryType as SocketFactoryType,
    )
    from aiohttp import (
        SocketTimeoutError as SocketTimeoutError,
    )
    from aiohttp import (
        StreamReader as StreamReader,
    )
    from aiohttp import (
        StringIOPayload as StringIOPayload,
    )
    from aiohttp import (
        StringPayload as StringPayload,
    )
    from aiohttp import (
        TextIOPayload as TextIOPayload,
    )
    from aiohttp import (
        ThreadedResolver as ThreadedResolver,
    )
    from aiohttp import (
        TooManyRedirects as TooManyRedirects,
    )
    from aiohttp import (
        TraceConfig as TraceConfig,
    )
    from aiohttp import (
        TraceConnectionCreateEndParams as TraceConnectionCreateEndParams,
    )
    from aiohttp import (
        TraceConnectionCreateStartParams as TraceConnectionCreateStartParams,
    )
    from aiohttp import (
        TraceConnectionQueuedEndParams as TraceConnectionQueuedEndParams,
    )
    from aiohttp import (
        TraceConnectionQueuedStartParams as TraceConnectionQueuedStartParams,
    )
    from aiohttp import (
        TraceConnectionReuseconnParams as TraceConnectionReuseconnParams,
    )
    from aiohttp import (
        TraceDnsCacheHitParams as TraceDnsCacheHitParams,
    )
    from aiohttp import (
        TraceDnsCacheMissParams as TraceDnsCacheMissParams,
    )
    from aiohttp import (
        TraceDnsResolveHostEndParams as TraceDnsResolveHostEndParams,
    )
    from aiohttp import (
        TraceDnsResolveHostStartParams as TraceDnsResolveHostStartParams,
    )
    from aiohttp import (
        TraceRequestChunkSentParams as TraceRequestChunkSentParams,
    )
    from aiohttp import (
        TraceRequestEndParams as TraceRequestEndParams,
    )
    from aiohttp import (
        TraceRequestExceptionParams as TraceRequestExceptionParams,
    )
    from aiohttp import (
        TraceRequestHeadersSentParams as TraceRequestHeadersSentParams,
    )
    from aiohttp import (
        TraceRequestRedirectParams as TraceRequestRedirectParams,
    )
    from aiohttp import (
        TraceRequestStartParams as TraceRequestStartParams,
    )
    from aiohttp import (
        TraceResponseChunkReceivedParams as TraceResponseChunkReceivedParams,
    )
    from aiohttp import (
        UploadAbortedError as UploadAbortedError,
    )
    from aiohttp import (
        UploadTracker as UploadTracker,
    )
    from aiohttp import (
        WebSocketError as WebSocketError,
    )
    from aiohttp import (
        WSCloseCode as WSCloseCode,
    )
    from aiohttp import (
        WSMessage as WSMessage,
    )
    from aiohttp import (
        WSMessageTypeError as WSMessageTypeError,
    )
    from aiohttp import (
        WSMsgType as WSMsgType,
    )
    from aiohttp import (
        WSServerHandshakeError as WSServerHandshakeError,
    )
    from aiohttp import (
        abc as abc,
    )
    from aiohttp import (
        client_exceptions as client_exceptions,
    )
    from aiohttp import (
        content_disposition_filename as content_disposition_filename,
    )
    from aiohttp import (
        encode_basic_auth as encode_basic_auth,
    )
    from aiohttp import (
        get_payload as get_payload,
    )
    from aiohttp import (
        hdrs as hdrs,
    )
    from aiohttp import (
        parse_content_disposition as parse_content_disposition,
    )
    from aiohttp import (
        payload_type as payload_type,
    )
    from aiohttp import (
        set_zlib_backend as set_zlib_backend,
    )
    from aiohttp import (
        streamer as streamer,
    )
    from aiohttp import test_utils as test_utils
    from aiohttp import (
        web as web,
    )

_OURS = (
    "NATIVE",
    "Batch",
    "BodyTooLarge",
    "ClientResponse",
    "ClientSession",
    "CloseReason",
    "FullLaneError",
    "LaneReason",
    "PoolFull",
    "PoolStats",
    "PoolTimeout",
    "Progress",
    "Request",
    "Result",
    "TCPConnector",
    "TCPOptions",
    "UnixConnector",
    "__version__",
    "install",
    "installed",
    "new_event_loop",
    "request",
    "run",
    "uninstall",
)
# Of ours, imported when they are asked for.
_PACKAGES = ("cluster", "jobs", "policy")
if not TYPE_CHECKING:
    __all__ = tuple(dict.fromkeys((*_aiohttp.__all__, *_OURS)))


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Resolve what is not ours to aiohttp's object or submodule (PEP 562)."""
        if name.startswith("__"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name in _PACKAGES:
            return importlib.import_module(f"{__name__}.{name}")
        try:
            return getattr(_aiohttp, name)
        except AttributeError:
            pass
        try:
            return importlib.import_module(f"aiohttp.{name}")
        except ModuleNotFoundError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_aiohttp)})
