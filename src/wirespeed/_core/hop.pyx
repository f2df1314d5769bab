"""One sending of a request, as a middleware sees it: the request it is given, and the handler it calls.

The request is a copy of a ClientRequest that aiohttp has made for one of the same shape. When the handler is
called and nothing was changed in it, what is sent is the head that was put together anyway. One that was
changed is sent by a Call, in Python. It must not know aiohttp beyond what it is given, nor decide
about redirects, retries and cookies.
"""

import asyncio
import inspect

cimport cython
from cpython.dict cimport PyDict_Copy, PyDict_GetItemWithError
from cpython.object cimport PyObject

from multidict import CIMultiDict, getversion

from wirespeed._core.connection cimport Connection
from wirespeed._core.coroutine cimport CoroutineState
from wirespeed._core.exchange cimport Exchange
from wirespeed._core.hosts cimport Host
from wirespeed._core.instances cimport allocate
from wirespeed._core.request cimport Stage
from wirespeed._core.response cimport new_response

cdef object _CIMultiDict = CIMultiDict
cdef object _getversion = getversion
# Attributes that each request has of its own.
cdef frozenset OWN = frozenset(
    ("original_url", "url", "headers", "_body", "_session", "_timer", "_traces")
)


# The request


@cython.final
cdef class Template:
    """What aiohttp's requests of one shape have in common.

    Args:
        req: one of them.
        headers: those that it had before it was sent.
        is_amended: sending it adds to them.
    """

    def __init__(self, req, headers, bint is_amended):
        self.request_class = type(req)
        # Whoever keeps a template must not keep the session.
        self.attributes = {name: None if name in OWN else value for name, value in vars(req).items()}
        self.shared = [(name, value) for name, value in vars(req).items() if name not in OWN]
        self.headers = headers
        self.count = len(headers)
        self.is_amended = is_amended

    cdef object new_request(self, Hop hop):
        """Make the request of a hop that has no value of its own yet."""
        cdef dict own = PyDict_Copy(self.attributes)
        cdef Shape shape = hop.prepared.shape
        cdef list values = hop.prepared.values
        url = hop.prepared.real_url
        if shape.order:
            headers = _CIMultiDict([
                (name, values[value] if type(value) is int else value)
                for name, value in shape.fields[:self.count]
            ])
        else:
            headers = self.headers.copy()
        hop.own_url = url.with_fragment(None) if url.raw_fragment else url
        hop.own_headers = headers
        hop.own_traces = [] if hop.traces is None else hop.traces
        own["original_url"] = url
        own["url"] = hop.own_url
        own["headers"] = headers
        own["_body"] = hop.body
        own["_session"] = hop.session
        own["_timer"] = hop.timer
        own["_traces"] = hop.own_traces
        # Without __init__: what it would do is copied.
        req = allocate(self.request_class)
        req.__dict__ = hop.attributes = own
        hop.version = _getversion(headers)
        return req

    cdef bint is_untouched(self, Hop hop, object req) except -1:
        """Whether a request is as it was made for a hop."""
        cdef dict own = hop.attributes
        cdef tuple pair
        if (
            req is not hop.req or type(req) is not self.request_class or req.__dict__ is not own
            or len(own) != len(self.attributes)
        ):
            return False
        for pair in self.shared:
            if not _is(own, pair[0], pair[1]):
                return False
        return (
            _is(own, "headers", hop.own_headers) and _getversion(hop.own_headers) == hop.version
            and _is(own, "url", hop.own_url)
            and _is(own, "original_url", hop.prepared.real_url)
            and _is(own, "_body", hop.body) and (hop.body is None or hop.body._value is hop.value)
            and _is(own, "_session", hop.session)
            and _is(own, "_timer", hop.timer)
            and _is(own, "_traces", hop.own_traces) and (hop.traces is not None or not hop.own_traces)
        )


cdef inline bint _is(dict own, object name, object value) except -1:
    return PyDict_GetItemWithError(own, name) is <PyObject*> value


# The handler


@cython.final
cdef class Hop:
    # What is asked by whoever wants to know whether it is a coroutine function: aiohttp's handler is one.
    _is_coroutine_mark = getattr(inspect, "_is_coroutine_mark", None)
    _is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", None)

    def __call__(self, req):
        """Send a request, and return the response once its head has come."""
        cdef AttemptCoroutine attempt = AttemptCoroutine.__new__(AttemptCoroutine)
        attempt.hop = self
        attempt.req = req
        return attempt

    cdef bint is_there(self) except -1:
        """Whether the pool still is the session's."""
        return self.session._connector is self.connector and not self.pool.is_closed

    @property
    def __name__(self):
        return "_connect_and_send_request"

    # For the Call that goes on

    @property
    def url(self):
        """The URL, without the params."""
        return self.address.url


cdef class AttemptCoroutine(RequestCoroutine):
    cdef object _begin(self):
        cdef Hop hop = self.hop
        cdef Host host
        cdef Connection conn
        self.lane = hop.lane
        self.session = hop.session
        if not hop.is_there() or (self.req is not None and not hop.template.is_untouched(hop, self.req)):
            self.stage = Stage.LEAVING
            return self.delegate(self.lane._handle(hop, self.req))
        self.prepared = hop.prepared if self.req is None else self._own()
        self.connector = hop.connector
        self.pool = hop.pool
        self.times = hop.times
        if hop.clock is None:
            # The clock sees to the total time while a connection is looked for.
            self.total_at = hop.total_at
        host = self.prepared.host
        if host is None or host.is_evicted:
            host = self.prepared.host = hop.prepared.host = hop.pool.host(hop.prepared.key)
        conn = hop.pool.take(host)
        if conn is None:
            return self._acquire(host)
        return self._send(conn)

    cdef Prepared _own(self):
        """One of its own: what the response tells of its request is what becomes of this one."""
        cdef Prepared prepared = self.hop.prepared
        cdef Prepared own
        if self.hop.template.is_amended:
            self.lane._amend(self.req, self.hop.connector)
        own = self.lane._new_prepared(
            prepared.method, prepared.url, prepared.key, prepared.host, prepared.data
        )
        own.req = self.req
        return own

    cdef object _send(self, Connection conn):
        self.total_at = self.hop.total_at
        result = RequestCoroutine._send(self, conn)
        if self.state == CoroutineState.WAITING and self.hop.clock is not None:
            try:
                self.hop.clock.enter()
            except BaseException:
                # It has passed before the wait began.
                self.exchange.abandon()
                raise
            self.is_inside = True
        return result

    cdef int _leave(self, object exc) except -1:
        if self.is_inside:
            self.is_inside = False
            self.hop.clock.leave(exc)
        return 0

    cdef object _on_thrown(self, object exc):
        cdef Exchange exchange = self.exchange
        if self.stage == Stage.RACING and isinstance(exc, Exception):
            # The handler raises what the dial has died of: it does not try again.
            exc = self.lane._as_dialled(self, exc)
            self.stage = Stage.DIALLING
        if self.is_inside:
            try:
                self._leave(exc)
            except BaseException:
                exchange.abandon()
                exchange.forget()
                raise
        return RequestCoroutine._on_thrown(self, exc)

    cdef object _answer(self):
        cdef Lane lane = self.lane
        cdef Exchange exchange = self.exchange
        self._leave(None)
        resp = new_response(lane.response_class, exchange, self.prepared, lane.resolve_charset, True)
        self.exchange = None
        if self.hop.traces:
            resp._traces = self.hop.traces
        return resp

    cdef object _recover(self, object exc):
        """Raise what the handler raises."""
        cdef Exchange exchange = self.exchange
        self._leave(exc)
        if exchange is not None:
            exchange.abandon()
            exchange.forget()
            self.exchange = None
        raise self.lane._as_raised(self, exc)

    cdef int _end(self) except -1:
        RequestCoroutine._end(self)
        self.req = None
        return 0

    cdef str _name(self):
        return "ClientSession._request.<locals>._connect_and_send_request"
