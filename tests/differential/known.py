"""The differences from aiohttp that are accepted, each with the section of the RFC that decides it.

The key is the id of a case or the name of a generated property. A listed difference that
no longer shows in a native build fails its test.
"""

from support.outcome import Known

_CONSTRUCTOR_FRAME = Known(
    ("warned_at",),
    "no RFC: aiohttp's constructor warns with a stack level that counts one frame; ours adds a frame, "
    "so the warning names our module. It is the same for every subclass of aiohttp's session.",
)

_IDLE_BYTES = Known(
    ("wire", "connections", "probe", "result"),
    "RFC 9112 section 6.3: what follows the final response must not be taken for another response. aiohttp "
    "keeps a connection on which bytes came while it was idle, unless they break its parser; with a whole "
    "answer among them the next request is given that answer. Ours is closed.",
)

_WARNING_FRAME = Known(
    ("warned_at",),
    "no RFC: aiohttp's helper warns with a fixed stack level, which names the caller's caller: ours.",
)

_NAME_NOT_A_TOKEN = Known(
    ("answer", "result", "error", "wire", "connections", "probe"),
    "RFC 9110 section 5.1: a field name is a token. aiohttp sends other names; ours raises ValueError first.",
)

_UNFRAMED_REQUEST = Known(
    ("wire", "connections", "probe"),
    "RFC 9112 section 6.3: the end of a request whose Transfer-Encoding does not end in chunked cannot be "
    "found by the server. aiohttp reuses the connection; ours closes it.",
)

_BODY_AFTER_HEAD = Known(
    ("answer", "result", "error", "wire", "connections", "probe"),
    "RFC 9112 section 6.3: a response to HEAD ends with its head. aiohttp fails when rubbish follows in the "
    "same read, and not when it follows later; ours returns the response and closes the connection.",
)

_UNASKED = Known(
    ("answer", "result", "error", "wire", "connections", "probe"),
    "RFC 9112 section 9.2: data on a connection without an outstanding request is no response; the "
    "connection is closed. aiohttp takes it for the answer to the request that follows.",
    sometimes=True,
)

_EMPTY_CODING = Known(
    ("answer", "result", "error", "wire", "connections", "probe"),
    "RFC 9112 section 6.1: Transfer-Encoding lists at least one coding to mean anything. The llhttp of "
    "httptools refuses an empty one, that of aiohttp does not.",
)

_ENDLESS_INTERIM = Known(
    ("answer", "result", "error", "wire", "connections", "probe"),
    "RFC 9110 section 15.2 sets no number of interim responses. aiohttp reads them for ever, ours 100.",
)

_CLOSED_SESSION = Known(
    ("answer", "result", "error", "wire", "connections"),
    "no RFC: with aiohttp, closing a session cancels those who wait for a connection, as if their tasks had "
    "been cancelled, and a reader gets a RuntimeError. Ours get a connection or payload error.",
    sometimes=True,
)

_BODY_ERROR_ARRIVES = Known(
    ("answer", "result", "error", "wire", "connections", "probe"),
    "RFC 9112 section 8: an incomplete body is an error. Where the rest of a body is malformed, or ends "
    "before its compressed data does, aiohttp's reader hangs until its timeout; ours gets an error.",
)

_RESET_IN_BODY = Known(
    ("answer", "result", "error"),
    "RFC 9112 section 8: a body that ends with the connection is complete unless an error was indicated. "
    "aiohttp takes it as complete after a reset too; ours raises a ClientPayloadError.",
    sometimes=True,
)

_SILENCE_AFTER_INTERIM = Known(
    ("answer", "result", "error", "wire", "connections", "probe"),
    "no RFC: an interim response ends aiohttp's sock_read timeout. Ours goes on counting.",
    sometimes=True,
)

_LOST_BY_A_HANDLER = Known(
    ("answer", "result", "seen", "wire", "connections", "probe", "left_open"),
    "no RFC: when a handler of connection_reuseconn or connection_create_end raises, aiohttp frees the slot "
    "of the connection and forgets the connection, open. Ours keeps it for the next request or closes it.",
    sometimes=True,
)

_CANCELLED_WRITER = Known(
    ("answer", "error", "seen", "result", "wire", "connections", "probe"),
    "no RFC: when the writer of the body is cancelled before the answer is waited for, aiohttp fails with "
    "an AttributeError of its own. Ours raises ServerDisconnectedError, as after any lost connection. "
    "Only where tasks start eagerly: CPython 3.12 and later.",
    sometimes=True,
)

_WRITER_LINGERS = Known(
    ("result.connection", "seen"),
    "no RFC: resp.connection stays in aiohttp until the writer that is cancelled with the response has had "
    "its turn of the loop. Ours is None at once.",
    sometimes=True,
)

_CUT_UPLOAD = Known(
    ("result", "seen"),
    "no RFC: when the answer to an unfinished upload closes the connection, aiohttp's tracker no longer sees "
    "what had left the transport. Ours has counted it.",
)

_TOTAL_BY_OUR_CLOCK = Known(
    ("answer", "error", "seen", "result", "wire", "connections", "probe"),
    "no RFC: aiohttp loses the total timeout when it passes within a handler of request_start, and fails a "
    "body that is there already when it passed within a middleware. Ours holds it over what is waited for.",
    sometimes=True,
)

_POOL_TIMEOUT = Known(
    ("answer", "error"),
    "no RFC: when `connect` passes in the queue of the pool, aiohttp says what it says of a host that does "
    "not answer. Ours raises a subclass of that error, with the same text and what blocked behind it.",
)

_KEEP_ALIVE_FIELD = Known(
    ("wire", "connections", "probe"),
    "RFC 2068 section 19.7.1.1: Keep-Alive: timeout says for how long the server keeps an idle connection. "
    "aiohttp does not look at it; ours sends nothing on the connection after that.",
)

KNOWN: dict[str, Known] = {
    **dict.fromkeys(
        ("limit", "full pool of one connect", "full pool of one per host connect"), _POOL_TIMEOUT
    ),
    "keep-alive keep-alive timeout of zero": _KEEP_ALIVE_FIELD,
    **dict.fromkeys(
        (
            "trace request_chunk_sent raises CancelledError",
            "trace chunk of a PUT raises CancelledError",
            "expect called again after a refusal",
            "expect called again after a close",
        ),
        _CANCELLED_WRITER,
    ),
    **dict.fromkeys(
        (
            "expect answer and release, whole",
            "expect answer and release, a part",
            "expect with traces, refused",
        ),
        _WRITER_LINGERS,
    ),
    **dict.fromkeys(
        (
            "trace request_start total outlasted",
            "trace end within a body total outlasted",
            "middleware total swallowed after",
        ),
        _TOTAL_BY_OUR_CLOCK,
    ),
    "tracker answered early, then a close": _CUT_UPLOAD,
    "session auth": _CONSTRUCTOR_FRAME,
    "session auth of a wrong type": _CONSTRUCTOR_FRAME,
    "request auth overrides the session's": _CONSTRUCTOR_FRAME,
    "half a head after the body": _IDLE_BYTES,
    "two answers apart": _IDLE_BYTES,
    "ssl and verify_ssl": _WARNING_FRAME,
    "fingerprint too short": _WARNING_FRAME,
    "verify_ssl is deprecated": _WARNING_FRAME,
    "option chunked by size": _WARNING_FRAME,
    "header name empty": _NAME_NOT_A_TOKEN,
    "header name with a space": _NAME_NOT_A_TOKEN,
    "header name with a colon": _NAME_NOT_A_TOKEN,
    "headers unicode name": _NAME_NOT_A_TOKEN,
    "headers transfer encoding on a GET": _UNFRAMED_REQUEST,
    "HEAD answered with a body": _BODY_AFTER_HEAD,
    "answer before the request": _UNASKED,
    "expect POST answered by 100 before the head is whole": _UNASKED,
    "expect PUT answered by 100 before the head is whole": _UNASKED,
    "header Transfer-Encoding empty too": _EMPTY_CODING,
    "header Transfer-Encoding empty too byte by byte": _EMPTY_CODING,
    "Transfer-Encoding ''": _EMPTY_CODING,
    "limit of interim answers": _ENDLESS_INTERIM,
    "closed": _CLOSED_SESSION,
    "session closed": _CLOSED_SESSION,
    "malformed while streaming": _BODY_ERROR_ARRIVES,
    **{
        f"late chunk with {what}": _BODY_ERROR_ARRIVES
        for what in ("a size of letters", "nothing after the chunk", "a bad trailer")
    },
    **{
        f"broken {kind} {cut} by {framing}": _BODY_ERROR_ARRIVES
        for kind in ("deflate", "raw deflate")
        for cut in ("cut in the middle", "less its last byte")
        for framing in ("length", "chunked")
    },
    **{
        f"broken {what}": _RESET_IN_BODY
        for what in (
            "a body until close, reset to GET",
            "a body until close, reset to POST",
            "half a body aborted over TLS",
        )
    },
    **{
        f"sock_read stalled after an interim answer to {method}": _SILENCE_AFTER_INTERIM
        for method in ("GET", "POST")
    },
    **{
        f"idle, then the server {what}, then {method}": _IDLE_BYTES
        for what in ("sent an answer", "sent a line end", "sent a 100", "sent half a head")
        for method in ("GET", "POST")
    },
    **{
        f"trace {where} {how}": _LOST_BY_A_HANDLER
        for where in ("connection_reuseconn", "connection_create_end", "headers of a retry")
        for how in (
            *(f"raises {error}" for error in ("LookupError", "CancelledError", "ServerDisconnectedError")),
            "raises in the second config",
            "raises, and exception too",
            "cancelled",
            *(f"{limit} outlasted" for limit in ("total", "connect")),
        )
    },
}
