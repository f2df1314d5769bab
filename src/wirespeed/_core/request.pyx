"""A request of the express lane, from the call to its response. Made by the session at each call.

What most requests do is done here, without a frame of Python: look the head up, take a connection or
queue for one, send, wait, hand out the response. Everything else goes on in Python, by a method of the
session's `Lane` that a subclass has. It must not know aiohttp, nor decide about redirects, retries and
errors.
"""

from types import MethodType

from wirespeed._core.coroutine import NOTHING
from wirespeed._core.hosts import TooManyWaiters

from wirespeed._core.connection cimport ConnectionState
from wirespeed._core.dial cimport start as start_dial
from wirespeed._core.guard cimport Watch
from wirespeed._core.message cimport ResponseHead
from wirespeed._core.response cimport let_go, new_response


cdef class RequestCoroutine(NativeCoroutine):
    """What a session's request methods return: to be awaited, or entered by `async with`.

    Args:
        lane: of the session.
        session: the session.
        method: the method, in any case.
        str_or_url: as in aiohttp.
        options: the keyword arguments.
    """

    def __init__(self, Lane lane not None, session, method, str_or_url, dict options not None):
        self.lane = lane
        self.session = session
        self.method = method
        self.str_or_url = str_or_url
        self.options = options

    # Steps

    cdef object _begin(self):
        cdef Lane lane = self.lane
        cdef Prepared prepared
        cdef Host host
        cdef Connection conn
        if not lane.is_current(self.session) and not lane.renew(self.session):
            return self._slowly()
        if not lane.is_plain or lane.pool.is_closed:
            return self._slowly()
        if lane.trace_configs or lane.middlewares or "middlewares" in self.options:
            return self._hook()
        lane.express += 1
        prepared = self._find()
        if prepared is None:
            lane.express -= 1
            return self._slowly()
        self.prepared = prepared
        self.connector = self.session._connector
        self.pool = lane.pool
        if self.times.total > 0:
            self.total_at = self.times.coarse(self.pool.deadlines.time(), self.times.total)
        host = prepared.host
        if host is None or host.is_evicted:
            host = prepared.host = self.pool.host(prepared.key)
        conn = self.pool.take(host)
        if conn is None:
            return self._acquire(host)
        return self._send(conn)

    cdef object _slowly(self):
        """Let Python do all of it."""
        self.stage = Stage.LEAVING
        return self.delegate(self.lane._perform(self.session, self.method, self.str_or_url, self.options))

    cdef object _hook(self):
        """Let code of the user's take part, in a coroutine of its own."""
        coroutine = self.lane._hook(self)
        if coroutine is None:
            return self._slowly()
        self.stage = Stage.LEAVING
        return self.delegate(coroutine)

    cdef Prepared _find(self):
        """The request ready to send; None when it is one for Python."""
        cdef Lane lane = self.lane
        cdef Prepared prepared = None
        cdef bint is_simple = lane.is_usual_jar
        self.times = lane.times
        self.raise_for_status = lane.raise_for_status
        self.follows = True
        for name, value in self.options.items():
            if name == "allow_redirects":
                self.follows = value
            elif name == "timeout":
                if value is not lane.sentinel and value is not ...:
                    self.times = lane.times_of(value)
            elif name == "raise_for_status":
                if value is not None:
                    self.raise_for_status = value
            elif name == "params" or name == "headers" or name == "json" or name == "data":
                is_simple = False
            elif name != "max_redirects":
                return None
        is_simple = is_simple and not lane.has_cookies()
        if is_simple:
            prepared = lane.kept(self.method, self.str_or_url)
        if prepared is None:
            found = lane.fit(self.session, self.method, self.str_or_url, self.options)
            if not isinstance(found, Prepared):
                self.options = found
                return None
            prepared = <Prepared> found
            if is_simple:
                lane.keep(prepared, self.str_or_url)
        return prepared

    cdef object _acquire(self, Host host):
        """Queue for a slot of the pool; with one, Python dials."""
        cdef Pool pool = self.pool
        self.asked_at = pool.now()
        if not pool.is_closed and not pool._has_room(host):
            if self.times.connect > 0:
                self.connect_at = self.times.connecting(pool.deadlines.time(), self.times.connect)
            try:
                self.waiter = pool.wait(host, self.connect_at, self.total_at)
            except TooManyWaiters as exc:
                return self._recover(exc)
            self.stage = Stage.QUEUED
            return self.wait(self.waiter.future)
        return self._dial(host, False)

    cdef object _dial(self, Host host, bint has_slot):
        """Dial to an address and take what comes first; all but that is Python's."""
        cdef Pool pool = self.pool
        cdef double now, at = 0
        address = self.lane._direct_address(self)
        if address is None or not (has_slot or pool.try_reserve(host)):
            self.stage = Stage.DIALLING
            return self.delegate(self.lane._dial(self, has_slot))
        if self.times.connect > 0 or self.times.sock_connect > 0:
            now = pool.deadlines.time()
            if self.connect_at == 0 and self.times.connect > 0:
                self.connect_at = self.times.connecting(now, self.times.connect)
            if self.times.sock_connect > 0:
                at = self.times.connecting(now, self.times.sock_connect)
        self.waiter = pool.begin_dial(host, self.connect_at, self.total_at, pool.now() - self.asked_at)
        if not self.waiter.future.done():
            self.dial = start_dial(pool, self.waiter, address, at)
        self.stage = Stage.RACING
        return self.wait(self.waiter.future)

    cdef object _on_raced(self, Connection conn):
        """There is a connection. When it is not what we dialled, that joins the pool."""
        cdef Dial dial = self.dial
        self.dial = None
        if dial is not None and not dial.is_settled:
            self.lane._leave_dial(self, dial)
        if conn.state == ConnectionState.RESERVED:
            return self._send(conn)
        self.stage = Stage.DIALLING
        return self.delegate(self.lane._dial_again(self, conn))

    cdef object _send(self, Connection conn):
        cdef Prepared prepared = self.prepared
        cdef Exchange exchange
        try:
            exchange = self.exchange = conn._send(
                prepared.data, self._settings(), prepared.skip_body, self.total_at, self.times.sock_read,
                False, prepared.is_unclean, self._waiter(),
            )
        except BaseException as exc:
            conn.close()
            if isinstance(exc, ConnectionResetError):
                return self._recover(exc)
            raise
        if self.connector.observers:
            exchange.on_end = self.lane._observe(self)
        self.stage = Stage.SENT
        if exchange.head is not None or exchange.error is not None:
            # Answered on the spot, by a mock.
            return self._on_done()
        return self.wait(exchange.waiter)

    cdef object _waiter(self):
        """What the exchange wakes when its head has come; None for a future."""
        return None

    cdef ExchangeSettings _settings(self):
        return self.lane.settings

    cdef object _on_done(self):
        cdef Waiter waiter = self.waiter
        if self.stage == Stage.SENT:
            if self.exchange.head is None:
                if not self.exchange.waiter.done():
                    return self.wait_on(self.exchange.waiter)
                return self._recover(self.exchange.waiter.exception())
            return self._answer()
        if not waiter.future.done():
            return self.wait_on(waiter.future)
        self.waiter = None
        conn = waiter.future.result()
        if self.stage == Stage.RACING:
            return self._on_raced(<Connection> conn)
        if conn is not None and (<Connection> conn).state == ConnectionState.RESERVED:
            return self._send(<Connection> conn)
        # Without a connection the slot is ours to dial on. One that was lost meanwhile took its slot along.
        if conn is not None:
            self.prepared.host = self.pool.host(self.prepared.key)
        return self._dial(self.prepared.host, conn is None)

    cdef object _on_inner_done(self, object result):
        if self.stage == Stage.DIALLING:
            return self._send(<Connection?> result)
        return self._finish(result)

    cdef object _on_inner_failed(self, object exc):
        if self.stage == Stage.DIALLING and isinstance(exc, Exception):
            return self._recover(exc)
        raise exc

    cdef object _on_thrown(self, object exc):
        """What we wait for has failed, or the task was cancelled."""
        cdef Waiter waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            self.pool.cancel(waiter)
        if self.dial is not None:
            self.dial.cancel()
            self.dial = None
        if self.stage == Stage.RACING and isinstance(exc, Exception):
            self.stage = Stage.LEAVING
            return self.delegate(self.lane._undialled(self, exc))
        if waiter is not None:
            self.lane._unsent(self, exc)
        if isinstance(exc, Exception):
            return self._recover(exc)
        if waiter is None:
            self.exchange.abandon()
            self.exchange.forget()
        raise exc

    cdef object _answer(self):
        """The head has come."""
        cdef Lane lane = self.lane
        cdef Exchange exchange = self.exchange
        cdef ResponseHead head = exchange.head
        cdef int status = head.status
        resp = new_response(lane.response_class, exchange, self.prepared, lane.resolve_charset, True)
        if (
            head.has_cookies or (300 <= status < 400 and self.follows)
            or (self.raise_for_status is not False and (status >= 400 or self.raise_for_status is not True))
        ):
            self.stage = Stage.LEAVING
            self.exchange = None
            return self.delegate(lane._look_at(self, resp))
        self.stage = Stage.ANSWERED
        if self.enters:
            exchange.resp_in_context = True
            self.resp = resp
        return resp

    cdef object _recover(self, object exc):
        """Let Python find out what the caller gets: an error, or the response to a second try."""
        cdef Exchange exchange = self.exchange
        self.stage = Stage.LEAVING
        if exchange is not None:
            exchange.abandon()
            exchange.forget()
            self.exchange = None
        return self.delegate(self.lane._recover(self, exc))

    cdef object _finish(self, object resp):
        if self.enters:
            if type(resp) is self.lane.response_class and resp._exchange is not None:
                (<Exchange> resp._exchange).resp_in_context = True
                self.resp = resp
            elif self.resp is None:
                self.resp = resp
                return self.delegate(resp.__aenter__())
        return resp

    cdef int _end(self) except -1:
        NativeCoroutine._end(self)
        # A task that is done may be kept for long.
        self.session = self.connector = self.str_or_url = self.options = None
        self.prepared = None
        self.waiter = None
        self.dial = None
        if self.resp is None:
            self.exchange = None
        return 0

    @property
    def timeout(self):
        """The ClientTimeout of the request, or None before it is known."""
        return None if self.times is None else self.times.timeout

    # async with

    def __aenter__(self):
        self.enters = True
        return self

    def __aexit__(self, kind, exc, traceback):
        cdef Exchange exchange = self.exchange
        if exchange is not None and self.stage == Stage.ANSWERED and let_go(exchange):
            return NOTHING
        return self.resp.__aexit__(kind, exc, traceback)

    cdef str _name(self):
        return "ClientSession._request"


# The methods of a session. Functions, which the session's class makes methods of.

cdef object _base = None                # aiohttp's session
cdef object _own_request = None         # our `_request`, and what it looks at
cdef Watch _watch = None
cdef object _tracking = None
cdef object _known = None
cdef object _is_patched = None


def serve(base, own_request, Watch watch not None, is_patched, tracking, known):
    """Name what the methods below go around when they can.

    Args:
        base: aiohttp's session class, whose methods are called when they cannot.
        own_request: the function `_request` of our session class.
        watch: of the classes that tools patch.
        is_patched: called when one of them was changed; whether that matters.
        tracking: the module whose `sessions` is None while no leaks are tracked.
        known: the options that the express lane knows.
    """
    global _base, _own_request, _watch, _is_patched, _tracking, _known
    _base, _own_request, _watch, _is_patched = base, own_request, watch, is_patched
    _tracking, _known = tracking, known


cdef Lane own_lane(object session):
    """The lane of a session; None where somebody overrides or patches what requests would go through."""
    request = session._request
    if (
        type(request) is not MethodType or request.__func__ is not _own_request
        or _tracking.sessions is not None or (not _watch.is_unchanged() and _is_patched())
    ):
        return None
    return session._lane


cdef RequestCoroutine _ask(object session, object method, object url, dict options):
    """Make the request, unless it has to go through what somebody overrides or patches."""
    cdef RequestCoroutine asked
    cdef Lane lane = own_lane(session)
    if lane is None:
        return None
    for name in options:
        if name not in _known:
            # aiohttp raises at the call for some.
            return None
    asked = RequestCoroutine.__new__(RequestCoroutine)
    asked.lane = lane
    asked.session = session
    asked.method = method
    asked.str_or_url = url
    asked.options = options
    return asked


def request(self, method, url, **kwargs):
    return _ask(self, method, url, kwargs) or _base.request(self, method, url, **kwargs)


def get(self, url, *, allow_redirects=True, **kwargs):
    if allow_redirects is not True:
        kwargs["allow_redirects"] = allow_redirects
    return _ask(self, "GET", url, kwargs) or _base.get(self, url, **kwargs)


def options(self, url, *, allow_redirects=True, **kwargs):
    if allow_redirects is not True:
        kwargs["allow_redirects"] = allow_redirects
    return _ask(self, "OPTIONS", url, kwargs) or _base.options(self, url, **kwargs)


def head(self, url, *, allow_redirects=False, **kwargs):
    kwargs["allow_redirects"] = allow_redirects
    return _ask(self, "HEAD", url, kwargs) or _base.head(self, url, **kwargs)


def post(self, url, *, data=None, **kwargs):
    if data is not None:
        kwargs["data"] = data
    return _ask(self, "POST", url, kwargs) or _base.post(self, url, **kwargs)


def put(self, url, *, data=None, **kwargs):
    if data is not None:
        kwargs["data"] = data
    return _ask(self, "PUT", url, kwargs) or _base.put(self, url, **kwargs)


def patch(self, url, *, data=None, **kwargs):
    if data is not None:
        kwargs["data"] = data
    return _ask(self, "PATCH", url, kwargs) or _base.patch(self, url, **kwargs)


def delete(self, url, **kwargs):
    return _ask(self, "DELETE", url, kwargs) or _base.delete(self, url, **kwargs)
