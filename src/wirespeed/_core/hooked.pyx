"""A request whose way leads through code of the user's: middlewares, and the listeners of traces.

The request is a coroutine that drives theirs, without frames of Python between. A middleware gets a
copy of a ClientRequest that aiohttp has made for the same method and URL; when it calls the handler with
nothing changed in it, what is sent are the kept bytes. Whatever is out of the ordinary (a request that was
changed, a redirect, cookies, a second try, an error) goes on in Python, as a Call, from where it is. Made by
`hook`, which the request asks. It must not know aiohttp beyond what it is given.
"""

import asyncio
import inspect
from types import CoroutineType

cimport cython
from cpython.dict cimport PyDict_Copy, PyDict_GetItem, PyDict_Next
from cpython.object cimport PyObject, PyTypeObject

from multidict import CIMultiDict, getversion
from yarl import URL

from wirespeed._core.connection cimport Connection
from wirespeed._core.coroutine cimport CoroutineState
from wirespeed._core.exchange cimport Exchange
from wirespeed._core.hosts cimport Host
from wirespeed._core.request cimport Stage
from wirespeed._core.response cimport new_response

cdef object _CIMultiDict = CIMultiDict
cdef object _getversion = getversion
cdef tuple NO_ARGUMENTS = ()
cdef enum:
    TEMPLATES_MAX = 1024

cdef extern from *:
    """
    static inline PyObject *wirespeed_alloc(PyTypeObject *type) { return type->tp_alloc(type, 0); }
    static inline PyObject *wirespeed_make(PyTypeObject *type, PyObject *arguments) {
        return type->tp_new(type, arguments, NULL);
    }
    """
    object wirespeed_alloc(PyTypeObject* type)
    object wirespeed_make(PyTypeObject* type, object arguments)

cdef enum Part:
    STARTING = 0                        # the listeners of on_request_start
    INSIDE                              # the middlewares, or the attempt: under the clock
    ENDING                              # the listeners of on_request_end
    OUTSIDE                             # in Python, which returns what we return


async def _await(awaitable):
    return await awaitable


cdef object _coroutine(object awaitable):
    """What code of the user's returned, as something that can be driven."""
    if type(awaitable) is CoroutineType or isinstance(awaitable, NativeCoroutine):
        return awaitable
    return _await(awaitable)


# What is kept


cdef class Template:
    """What requests of one method and URL have in common.

    Args:
        prepared: the request as it is sent.
        url: as listeners are told of it.
        req: aiohttp's ClientRequest.
        headers: those that it had before it was sent.
        is_amended: sending it adds to its headers.
    """

    def __init__(self, Prepared prepared not None, url, req, headers, bint is_amended):
        self.prepared = prepared
        self.url = url
        self.request_class = type(req)
        self.attributes = dict(vars(req))
        self.headers = headers
        self.attributes["headers"] = None
        # Whoever keeps a template must not keep the session.
        self.attributes["_session"] = None
        self.is_amended = is_amended

    cdef object new_request(self, Hop hop):
        cdef dict own = PyDict_Copy(self.attributes)
        req = wirespeed_alloc(<PyTypeObject*> self.request_class)
        headers = self.headers.copy()
        own["headers"] = headers
        own["_session"] = hop.session
        own["_timer"] = hop.timer()
        own["_traces"] = [] if hop.traces is None else hop.traces
        req.__dict__ = own
        hop.version = _getversion(headers)
        return req

    cdef bint is_untouched(self, Hop hop, object req) except -1:
        """Whether a request is as it was made for a hop."""
        cdef dict own
        cdef PyObject* name
        cdef PyObject* value
        cdef PyObject* found
        cdef Py_ssize_t at = 0
        if req is not hop.req or type(req) is not self.request_class:
            return False
        own = req.__dict__
        if len(own) != len(self.attributes):
            return False
        while PyDict_Next(self.attributes, &at, &name, &value):
            found = PyDict_GetItem(own, <object> name)
            if found is value:
                continue
            if found is NULL:
                return False
            if <object> name == "headers":
                if type(<object> found) is not _CIMultiDict or _getversion(<object> found) != hop.version:
                    return False
            elif <object> name == "_session":
                if <object> found is not hop.session:
                    return False
            elif <object> name == "_timer":
                if <object> found is not hop.timer():
                    return False
            elif <object> name == "_traces":
                if <list?> <object> found != (hop.traces or []):
                    return False
            else:
                return False
        return True


cdef class Listeners:
    """Those of one TraceConfig.

    Args:
        config: the config.
        new_context: makes the context of a request.
        starts: the listeners of on_request_start.
        ends: the listeners of on_request_end.
    """

    def __init__(self, config, new_context, tuple starts not None, tuple ends not None):
        self.config = config
        self.new_context = new_context
        self.starts = starts
        self.ends = ends


cdef class Hooks:
    """What a session keeps for requests with middlewares or traces.

    Args:
        untimed: the timer of a request without a total time.
        start_params: makes what the listeners of on_request_start get.
        end_params: makes what the listeners of on_request_end get.
        watch: of the classes that call the listeners.
        names: of aiohttp's client, where tools replace `Trace`.
    """

    def __init__(self, untimed, start_params, end_params, Watch watch not None, dict names not None):
        self.untimed = untimed
        self.templates = {}
        self.start_params = start_params
        self.end_params = end_params
        self.watch = watch
        self.names = names
        self.trace_class = names["Trace"]

    def forget(self):
        """Forget what was made of the session."""
        self.templates.clear()

    cdef bint are_known(self, Lane lane, list configs) except -1:
        """Whether all that is to be told anything are listeners of the signals that are sent here."""
        cdef Py_ssize_t i
        cdef Py_ssize_t count = len(configs)
        cdef bint is_same = (
            self.configs is not None and len(self.configs) == count and self.watch.is_unchanged()
            and PyDict_GetItem(self.names, "Trace") is <PyObject*> self.trace_class
        )
        for i in range(count):
            if not is_same:
                break
            is_same = self.configs[i] is configs[i]
        if not is_same:
            # First: configs may be added by another thread.
            self.configs = tuple(configs)
            self.listeners = lane._listeners(self.configs)
        return self.listeners is not None


# Making one


def hook(Lane lane not None, RequestCoroutine asked not None):
    """Return the coroutine of a request with middlewares or traces; None when it is one for Python.

    Args:
        lane: of the session; it is current.
        asked: the request.
    """
    cdef Hooks hooks = lane.hooks
    cdef HookedCoroutine hooked
    cdef Hop hop
    cdef Template template
    cdef Times times = lane.times
    cdef dict kept
    session = asked.session
    if (
        not lane.is_plain or not lane.is_usual_jar or lane.cookie_jar._cookies
        # Requests then note where they were made.
        or session._loop.get_debug()
        or type(lane.trace_configs) is not list
    ):
        return None
    hooked = HookedCoroutine.__new__(HookedCoroutine)
    hooked.middlewares = session._middlewares
    hooked.raise_for_status = lane.raise_for_status
    hooked.follows = True
    for name, value in asked.options.items():
        if name == "allow_redirects":
            hooked.follows = value
        elif name == "timeout":
            if value is not lane.sentinel and value is not ...:
                try:
                    times = lane.times_of(value)
                except Exception:
                    # Python finds out when to say that it is none.
                    hooked._dismiss()
                    return None
        elif name == "raise_for_status":
            if value is not None:
                hooked.raise_for_status = value
        elif name == "trace_request_ctx":
            hooked.trace_request_ctx = value
        elif name == "middlewares":
            if value is not None:
                hooked.middlewares = value
        elif name != "max_redirects":
            hooked._dismiss()
            return None
    if lane.trace_configs and not hooks.are_known(lane, lane.trace_configs):
        hooked._dismiss()
        return None
    found = hooks.templates.get(asked.method)
    kept = found
    found = None
    if kept is not None and type(asked.str_or_url) in (str, URL):
        found = kept.get(asked.str_or_url)
    if found is None:
        found = lane._template(session, asked.method, asked.str_or_url)
        if found is None:
            hooked._dismiss()
            return None
        if kept is None:
            kept = hooks.templates[asked.method] = {}
        elif len(kept) >= TEMPLATES_MAX:
            kept.clear()
        kept[asked.str_or_url] = found
    template = found
    hop = hooked.hop = Hop.__new__(Hop)
    hop.lane = lane
    hop.session = session
    hop.method = asked.method
    hop.str_or_url = asked.str_or_url
    hop.options = asked.options
    hop.times = times
    hop.pool = lane.pool
    hop.connector = session._connector
    hop.template = template
    if lane.trace_configs:
        hop.listeners = hooks.listeners
        hop.contexts = []
    if times.total > 0:
        hop.total_at = times.coarse(hop.pool.deadlines.time(), times.total)
        hop.clock = Clock.__new__(Clock)
        hop.clock.loop = session._loop
        hop.clock.at = hop.total_at
        hop.clock.start(hop.pool.deadlines)
    lane.express += 1
    return hooked


cdef class Hop:
    # What asks whether it is a coroutine function: aiohttp's handler is one.
    _is_coroutine_mark = getattr(inspect, "_is_coroutine_mark", None)
    _is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", None)

    def __call__(self, req):
        """Send a request, and return the response once its head has come."""
        cdef AttemptCoroutine attempt = AttemptCoroutine.__new__(AttemptCoroutine)
        attempt.hop = self
        attempt.req = req
        return attempt

    cdef object timer(self):
        return (<Hooks> self.lane.hooks).untimed if self.clock is None else self.clock

    @property
    def timeout(self):
        """The ClientTimeout of the request."""
        return self.times.timeout

    @property
    def key(self):
        """The connection key of the request, as long as nobody changes it."""
        return self.template.prepared.key

    @property
    def url(self):
        """The URL, as listeners are told of it."""
        return self.template.url

    @property
    def __name__(self):
        return "_connect_and_send_request"


# One attempt


cdef class AttemptCoroutine(RequestCoroutine):
    cdef object _begin(self):
        cdef Hop hop = self.hop
        cdef Template template = hop.template
        cdef Prepared prepared = template.prepared
        cdef Prepared own
        cdef Host host
        cdef Connection conn
        self.lane = hop.lane
        self.session = hop.session
        if (
            hop.session._connector is not hop.connector or hop.pool.is_closed
            or (self.req is not None and not template.is_untouched(hop, self.req))
        ):
            self.stage = Stage.LEAVING
            return self.delegate(self.lane._handle(hop, self.req))
        host = prepared.host
        if host is None or host.is_evicted:
            host = prepared.host = hop.pool.host(prepared.key)
        if self.req is not None:
            # One of its own: what the response tells of its request is what becomes of this one.
            if template.is_amended:
                self.lane._amend(self.req, hop.connector)
            cls = type(prepared)
            own = wirespeed_make(<PyTypeObject*> cls, NO_ARGUMENTS)
            own.method = prepared.method
            own.real_url = prepared.real_url
            own.key = prepared.key
            own.data = prepared.data
            own.skip_body = prepared.skip_body
            own.host = host
            own.req = self.req
            prepared = own
        self.prepared = prepared
        self.connector = hop.connector
        self.pool = hop.pool
        self.times = hop.times
        if hop.clock is None:
            # The clock sees to the total time while a connection is looked for.
            self.total_at = hop.total_at
        conn = hop.pool.take(host)
        if conn is None:
            return self._acquire(host)
        return self._send(conn)

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
        if not self.is_inside:
            return RequestCoroutine._on_thrown(self, exc)
        try:
            self._leave(exc)
        except BaseException:
            exchange.abandon()
            exchange.forget()
            raise
        return RequestCoroutine._on_thrown(self, exc)

    cdef object _answer(self):
        cdef Exchange exchange = self.exchange
        self._leave(None)
        resp = new_response(self.lane.response_class, exchange, self.prepared, self.lane.resolve_charset, True)
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


# The whole


cdef class HookedCoroutine(NativeCoroutine):
    cdef int _dismiss(self) except -1:
        """It is not to be awaited."""
        self.state = CoroutineState.ENDED
        return 0

    cdef object _begin(self):
        cdef Hop hop = self.hop
        if hop.listeners is None:
            return self._enter()
        hop.headers = _CIMultiDict(hop.lane.default_headers)
        self.headers_version = _getversion(hop.headers)
        return self._tell()

    # Listeners

    cdef object _tell(self):
        """Call the listener that is next."""
        try:
            coroutine = self._next_listener()
        except BaseException as exc:
            return self._give_up(exc)
        if coroutine is not None:
            return self.delegate(coroutine)
        self.params = None
        if self.stage == Part.STARTING:
            return self._enter()
        return self.resp

    cdef object _next_listener(self):
        cdef Hop hop = self.hop
        cdef Hooks hooks = hop.lane.hooks
        cdef Listeners listeners
        cdef tuple receivers
        cdef bint is_end = self.stage == Part.ENDING
        while self.config_at < len(hop.listeners):
            listeners = <Listeners> hop.listeners[self.config_at]
            receivers = listeners.ends if is_end else listeners.starts
            if self.receiver_at == 0:
                if not is_end:
                    hop.contexts.append(listeners.new_context(trace_request_ctx=self.trace_request_ctx))
                if receivers:
                    method, url = hop.template.prepared.method, hop.template.url
                    if is_end:
                        self.params = hooks.end_params(method, url, hop.headers, self.resp)
                    else:
                        self.params = hooks.start_params(method, url, hop.headers)
            if self.receiver_at < len(receivers):
                receiver = receivers[self.receiver_at]
                self.receiver_at += 1
                return _coroutine(receiver(hop.session, hop.contexts[self.config_at], self.params))
            self.config_at += 1
            self.receiver_at = 0
        return None

    # Middlewares

    cdef object _enter(self):
        """Start the hop, under the clock."""
        cdef Hop hop = self.hop
        cdef Lane lane = hop.lane
        if hop.listeners is not None and not (
            # Listeners may have changed anything.
            lane.is_current(hop.session) and hop.pool is lane.pool and not hop.pool.is_closed
            and not lane.cookie_jar._cookies
            and _getversion(hop.headers) == self.headers_version
        ):
            return self._go_on(None, None)
        try:
            if hop.clock is not None:
                hop.clock.enter()
        except BaseException as exc:
            return self._give_up(exc)
        self.stage = Part.INSIDE
        try:
            coroutine = self._new_attempt()
        except BaseException as exc:
            return self._go_on(None, exc)
        return self.delegate(coroutine)

    cdef object _new_attempt(self):
        cdef Hop hop = self.hop
        if not self.middlewares:
            return hop(None)
        if hop.listeners is not None:
            hop.traces = hop.lane._traces(hop, len(hop.listeners))
        hop.req = hop.template.new_request(hop)
        if len(self.middlewares) == 1:
            return _coroutine(self.middlewares[0](hop.req, hop))
        return _coroutine(hop.lane._chain(hop, self.middlewares)(hop.req))

    cdef object _on_inner_done(self, object result):
        if self.stage == Part.INSIDE:
            return self._answer(result)
        if self.stage == Part.OUTSIDE:
            return result
        return self._tell()

    cdef object _on_inner_failed(self, object exc):
        if self.stage == Part.INSIDE:
            return self._go_on(None, exc)
        if self.stage == Part.OUTSIDE:
            raise exc
        return self._give_up(exc)

    # The end

    cdef object _answer(self, object resp):
        cdef Hop hop = self.hop
        if not self._is_final(resp):
            return self._go_on(resp, None)
        if hop.clock is not None:
            hop.clock.leave(None)
            hop.clock.stop()
        if "_history" in <dict> resp.__dict__:
            resp._history = ()
        if hop.listeners is None:
            return resp
        self.resp = resp
        self.stage = Part.ENDING
        self.config_at = self.receiver_at = 0
        return self._tell()

    cdef bint _is_final(self, object resp) except -1:
        """Whether nothing is left to do with a response, nor with the request, but to tell the listeners."""
        cdef Exchange exchange
        cdef dict own
        cdef PyObject* body
        cdef int status
        if type(resp) is not self.hop.lane.response_class:
            return False
        exchange = resp._exchange
        own = resp.__dict__
        # A middleware may have changed what there is to be looked at.
        if exchange is None or exchange.head.has_cookies or "status" in own or "_raw_cookie_headers" in own:
            return False
        status = exchange.head.status
        if (300 <= status < 400 and self.follows) or (
            self.raise_for_status is not False and (status >= 400 or self.raise_for_status is not True)
        ):
            return False
        if self.hop.req is not None:
            body = PyDict_GetItem(<dict> self.hop.req.__dict__, "_body")
            if body is not NULL and <object> body is not None:
                return False
        return True

    # On in Python

    cdef object _go_on(self, object resp, object exc):
        """Let Python go on with the hop: with its response, its exception, or from its start."""
        cdef Hop hop = self.hop
        cdef bint is_inside = self.stage == Part.INSIDE
        self.stage = Part.OUTSIDE
        if is_inside and hop.clock is not None:
            hop.clock.is_handed_over = True
        return self.delegate(hop.lane._go_on(hop, resp, exc))

    cdef object _give_up(self, object exc):
        """Let Python tell the listeners that code around the hop has failed."""
        cdef Hop hop = self.hop
        # Those that were told of the start.
        cdef Py_ssize_t count = len(hop.contexts) if self.stage == Part.ENDING else self.config_at
        self.stage = Part.OUTSIDE
        return self.delegate(hop.lane._give_up(hop, self.resp, exc, count))

    cdef int _end(self) except -1:
        NativeCoroutine._end(self)
        self.hop = None
        self.middlewares = self.trace_request_ctx = self.params = self.resp = None
        return 0

    cdef str _name(self):
        return "ClientSession._request"
