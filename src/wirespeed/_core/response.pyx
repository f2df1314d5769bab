"""What is asked of every response, without a Python frame. Methods and attributes of `ClientResponse`.

They are functions and descriptors, not a base class with fields: a class that has aiohttp's layout can
take the place of aiohttp's in subclasses and instances that exist. It must not know how responses are
read that are not complete, or that aiohttp's own code made: that is Python's (`_read`, `_json`, `_leave`,
`_collect`).
"""

import json

cimport cython

from wirespeed._core.coroutine import NOTHING

from wirespeed._core.guard cimport Watch
from wirespeed._core.instances cimport allocate

cdef object _loads = json.loads
cdef object _scan = json.JSONDecoder().scan_once
cdef str JSON_TYPE = "application/json"
# Of the class that is in use, whose methods tests patch; set by `watch`.
cdef Watch _watch = None
cdef object _usual_class = None
# Encodings by Content-Type, None for aiohttp to find out; emptied when full.
cdef dict _codecs = {}
cdef enum:
    CODECS_MAX = 256


def watch(cls, Watch unchanged not None):
    """Name the class whose `json()` is done here, for as long as neither it nor a base is patched.

    Args:
        cls: the class.
        unchanged: watches it.
    """
    global _usual_class, _watch
    _usual_class, _watch = cls, unchanged


# Making one


cdef object new_response(object cls, Exchange exchange, object prepared, object resolve_charset,
                         bint is_plain):
    # Not by a call: neither through __init__, nor through the __new__ that install() puts there.
    resp = allocate(cls)
    exchange.prepared = prepared
    exchange.resolve_charset = resolve_charset
    exchange.is_plain = is_plain
    resp._exchange = exchange
    return resp


def adopt(cls, Exchange exchange not None, session, prepared, upload=None, traces=()):
    """Make the response of an exchange whose head has come.

    Args:
        cls: the class of responses.
        exchange: the exchange.
        session: the session that asked.
        prepared: the request that was sent.
        upload: the task that still sends the request body, or None.
        traces: of the request, which want to be told of the body.
    """
    resp = new_response(cls, exchange, prepared, session._resolve_charset, upload is None and not traces)
    if upload is not None:
        resp._adopt_upload(upload)
    if traces:
        resp._traces = traces
    return resp


# Attributes

cpdef enum FactKind:
    STATUS
    METHOD
    REAL_URL
    LOOP
    RESOLVE_CHARSET
    HAS_COOKIES


@cython.final
cdef class Fact:
    """An attribute that is read from the exchange; one that was assigned comes before it.

    Args:
        kind: which.
    """

    def __init__(self, FactKind kind):
        self.kind = <int> kind

    def __get__(self, resp, owner):
        cdef Exchange exchange
        if resp is None:
            return _utf8 if self.kind == FactKind.RESOLVE_CHARSET else None
        exchange = resp._exchange
        if exchange is None:
            if self.kind == FactKind.RESOLVE_CHARSET:
                return _utf8
            if self.kind == FactKind.HAS_COOKIES:
                return False
            if self.kind == FactKind.STATUS:
                return None
            raise AttributeError("the response was not started")
        if self.kind == FactKind.STATUS:
            return exchange.head.status
        if self.kind == FactKind.METHOD:
            return exchange.prepared.method
        if self.kind == FactKind.REAL_URL:
            return exchange.prepared.real_url
        if self.kind == FactKind.LOOP:
            return exchange.loop
        if self.kind == FactKind.HAS_COOKIES:
            return exchange.head.has_cookies
        return exchange.resolve_charset


cpdef enum StateKind:
    BODY
    CONNECTION
    CLOSED
    RELEASED
    IN_CONTEXT


@cython.final
cdef class State:
    """An attribute that the exchange keeps, or where aiohttp's code made the response, its dictionary.

    Args:
        kind: which.
        default: its value before it is set.
    """

    def __init__(self, StateKind kind, default):
        self.kind = <int> kind
        self.default = default

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, resp, owner):
        cdef Exchange exchange
        if resp is None:
            return self.default
        exchange = resp._exchange
        if exchange is None:
            return (<dict> resp.__dict__).get(self.name, self.default)
        if self.kind == StateKind.BODY:
            return exchange.resp_body
        if self.kind == StateKind.CONNECTION:
            return exchange.resp_connection
        if self.kind == StateKind.CLOSED:
            return exchange.resp_closed
        return exchange.resp_released if self.kind == StateKind.RELEASED else exchange.resp_in_context

    def __set__(self, resp, value):
        cdef Exchange exchange = resp._exchange
        if exchange is None:
            resp.__dict__[self.name] = value
        elif self.kind == StateKind.BODY:
            exchange.resp_body = value
        elif self.kind == StateKind.CONNECTION:
            exchange.resp_connection = value
        elif self.kind == StateKind.CLOSED:
            exchange.resp_closed = value
        elif self.kind == StateKind.RELEASED:
            exchange.resp_released = value
        else:
            exchange.resp_in_context = value


def _utf8(*_):
    return "utf-8"


# Methods


def read(self):
    """Read response payload."""
    cdef BodyCoroutine reading = BodyCoroutine.__new__(BodyCoroutine)
    reading.resp = self
    return reading


def json(self, *, encoding=None, loads=_loads, content_type=JSON_TYPE):
    """Read and decode JSON response."""
    cdef BodyCoroutine reading = BodyCoroutine.__new__(BodyCoroutine)
    reading.resp = self
    reading.is_json = True
    reading.encoding = encoding
    reading.loads = loads
    reading.content_type = content_type
    return reading


def leave(self, exc_type, exc_val, exc_tb):
    """End `async with`."""
    cdef Exchange exchange = self._exchange
    return NOTHING if exchange is not None and let_go(exchange) else self._leave()


cdef bint let_go(Exchange exchange) noexcept:
    """Let go of a response, where that is no more than noting it; else false."""
    if (
        not exchange.is_complete or exchange.sink is not None or not exchange.is_plain
        or exchange.resp_connection is not None
    ):
        return False
    exchange.resp_in_context = False
    exchange.resp_released = exchange.resp_closed = True
    return True


def collect(self):
    """End a response that nobody reaches any more."""
    cdef Exchange exchange = self._exchange
    if exchange is None or not (exchange.is_complete or exchange.resp_closed):
        self._collect()


cdef object _codec_of(bytes content_type):
    """The encoding of a JSON body, where its Content-Type says the usual; None for aiohttp to find out."""
    found = _codecs.get(content_type, NOTHING)
    if found is NOTHING:
        kind, _, parameters = content_type.lower().partition(b";")
        parameters = parameters.strip()
        # RFC 8259 section 8.1: it is UTF-8.
        is_usual = kind.strip() == b"application/json" and parameters in (b"", b"charset=utf-8")
        found = "utf-8" if is_usual else None
        if len(_codecs) >= CODECS_MAX:
            _codecs.clear()
        _codecs[content_type] = found
    return found


cdef object _decode(str text, object loads):
    """Decode JSON; json.loads is two frames of Python around this scanner."""
    cdef Py_ssize_t end
    if loads is _loads:
        try:
            value, end = _scan(text, 0)
        except (StopIteration, ValueError):
            pass  # not JSON: json.loads says in its own words why
        else:
            if end == len(text):
                return value
    return loads(text)


@cython.final
cdef class BodyCoroutine(NativeCoroutine):
    cdef object _begin(self):
        resp = self.resp
        cdef Exchange exchange = resp._exchange
        cdef bytes body
        if self.is_json and not self._is_usual(exchange):
            return self.delegate(
                resp._json(encoding=self.encoding, loads=self.loads, content_type=self.content_type)
            )
        body = self._whole_body(exchange)
        if not self.is_json:
            return self.delegate(resp._read()) if body is None else body
        if body is None:
            return self.delegate(resp._json(encoding=None, loads=self.loads, content_type=JSON_TYPE))
        body = body.strip()
        return _decode(body.decode("utf-8"), self.loads) if body else None

    cdef bytes _whole_body(self, Exchange exchange):
        """The body where it is at hand and nothing else has a say in it, or None."""
        if exchange is None or not exchange.is_plain or exchange.resp_released:
            return None
        if exchange.resp_body is None:
            exchange.resp_body = exchange.take_body()
        elif type(exchange.resp_body) is not bytes:
            return None  # assigned by somebody
        return exchange.resp_body

    cdef bint _is_usual(self, Exchange exchange) except -1:
        """Whether nothing but the Content-Type has a say in how the JSON is decoded."""
        cdef dict own = self.resp.__dict__
        return (
            self.encoding is None
            and (self.content_type is JSON_TYPE or self.content_type == JSON_TYPE)
            and exchange is not None
            and exchange.head.content_type is not None
            and type(self.resp) is _usual_class
            and _watch.is_unchanged()
            and "_headers" not in own  # somebody may have changed them
            and "read" not in own and "get_encoding" not in own
            and _codec_of(exchange.head.content_type) is not None
        )

    cdef int _end(self) except -1:
        NativeCoroutine._end(self)
        self.resp = self.loads = None
        return 0

    cdef str _name(self):
        return "ClientResponse.json" if self.is_json else "ClientResponse.read"
