"""A request whose way leads through code of the user's: middlewares, and the listeners of traces.

It is a coroutine that drives theirs, without frames of Python between. Whatever is out of the ordinary (a
redirect, cookies, a second try, an error) goes on in Python, as a Call, from where it is. Made by
`hook`, which the request asks. It must not know aiohttp beyond what it is given.
"""

cimport cython
from cpython.dict cimport PyDict_GetItemWithError
from cpython.object cimport PyObject

from multidict import CIMultiDict, getversion

from wirespeed._core.clock cimport Clock
from wirespeed._core.coroutine cimport CoroutineState, as_coroutine
from wirespeed._core.exchange cimport Exchange
from wirespeed._core.lane cimport Prepared
from wirespeed._core.policed cimport Plan
from wirespeed._core.request cimport RequestCoroutine

cdef object _CIMultiDict = CIMultiDict
cdef object _getversion = getversion
cdef enum:
    TEMPLATES_MAX = 1024                # of a session; emptied when full

cdef enum Part:
    STARTING = 0                        # the listeners of on_request_start
    INSIDE                              # the middlewares, or the attempt: under the clock
    ENDING                              # the listeners of on_request_end
    OUTSIDE                             # in Python, which returns what we return


# What is kept


@cython.final
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


@cython.final
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
        self.start_params = start_params
        self.end_params = end_params
        self.watch = watch
        self.names = names
        self.trace_class = names["Trace"]
        self.templates = {}

    cdef bint are_known(self, Lane lane, list configs) except -1:
        """Whether all that is to be told anything are listeners of the signals that are sent here."""
        cdef Py_ssize_t i
        cdef Py_ssize_t count = len(configs)
        cdef bint is_same = (
            self.configs is not None and len(self.configs) == count and self.watch.is_unchanged()
            and PyDict_GetItemWithError(self.names, "Trace") is <PyObject*> self.trace_class
        )
        for i in range(count):
            if not is_same:
                break
            is_same = self.configs[i] is configs[i]
        if not is_same:
            # A copy: programs add configs to the list.
            self.configs = tuple(configs)
            self.listeners = lane._listeners(self.configs)
        return self.listeners is not None

    cdef Template template(self, Hop hop):
        """What the request of a hop is copied from; None where a copy would not do."""
        if self.values is not hop.lane.values:
            self.values = hop.lane.values
            self.templates.clear()
        found = self.templates.get(hop.prepared.shape, self)
        if found is self:
            found = hop.lane._template(hop)
            if len(self.templates) >= TEMPLATES_MAX:
                self.templates.clear()
            self.templates[hop.prepared.shape] = found
        return found


# The request


def hook(Lane lane not None, RequestCoroutine asked not None):
    """Return the coroutine of a request with middlewares or traces; None when it is one for Python.

    Args:
        lane: of the session; it is current.
        asked: the request.
    """
    cdef Hooks hooks = lane.hooks
    cdef HookedCoroutine hooked
    cdef Hop hop
    session = asked.session
    # When a loop debugs, requests note where they were made.
    if not lane.is_usual_jar or type(lane.trace_configs) is not list or session._loop.get_debug():
        return None
    hooked = HookedCoroutine.__new__(HookedCoroutine)
    hop = hooked.hop = Hop.__new__(Hop)
    hop.lane = lane
    hop.session = session
    hop.method = asked.method
    hop.str_or_url = asked.str_or_url
    hop.pool = lane.pool
    hop.connector = session._connector
    hop.timer = hooks.untimed
    try:
        if (
            not hooked._take_options(asked.options)
            or (lane.trace_configs and not hooks.are_known(lane, lane.trace_configs))
            or not hooked._find()
        ):
            asked.options = hop.options
            hooked._dismiss()
            return None
        if lane.trace_configs:
            hooked._listen(hooks)
    except Exception:
        # A Call knows when to raise it.
        hooked._dismiss()
        return None
    if hop.times.total > 0:
        hop.total_at = hop.times.coarse(hop.pool.deadlines.time(), hop.times.total)
        hop.clock = hop.timer = Clock.__new__(Clock)
        hop.clock.loop = session._loop
        hop.clock.deadline = hop.total_at
        hop.clock.start(hop.pool.deadlines)
    lane.express += 1
    return hooked


cdef class HookedCoroutine(NativeCoroutine):
    # What is asked for

    cdef int _dismiss(self) except -1:
        """It is not to be awaited."""
        self.state = CoroutineState.ENDED
        return 0

    cdef bint _take_options(self, dict options) except -1:
        """Whether the options of the request are all known here."""
        cdef Lane lane = self.hop.lane
        self.hop.options = options
        self.hop.times = lane.times
        self.middlewares = lane.middlewares
        self.raise_for_status = lane.raise_for_status
        self.follows = True
        for name, value in options.items():
            if name == "allow_redirects":
                self.follows = value
            elif name == "timeout":
                if value is not lane.sentinel and value is not ...:
                    self.hop.times = lane.times_of(value)
            elif name == "raise_for_status":
                if value is not None:
                    self.raise_for_status = value
            elif name == "middlewares":
                if value is not None:
                    self.middlewares = value
            elif name == "trace_request_ctx":
                self.trace_request_ctx = value
            elif (
                name != "params" and name != "headers" and name != "json" and name != "data"
                and name != "max_redirects"
            ):
                return False
        return True

    cdef bint _find(self) except -1:
        """Make the request ready to send, as one of a shape; false when it has none."""
        cdef Hop hop = self.hop
        cdef Lane lane = hop.lane
        cdef dict options = hop.options
        cdef bint is_simple = not (
            lane.has_cookies()
            or "params" in options or "headers" in options or "json" in options or "data" in options
        )
        hop.address = lane._address(hop.session, hop.str_or_url)
        if hop.address is None:
            return False
        if is_simple:
            hop.prepared = lane.kept(hop.method, hop.str_or_url)
        if hop.prepared is None:
            found = lane.fit(hop.session, hop.method, hop.str_or_url, options)
            if not isinstance(found, Prepared):
                if found is not options:
                    hop.options = lane._as_seen(hop, found)
                return False
            hop.prepared = <Prepared> found
            if is_simple:
                lane.keep(hop.prepared, hop.str_or_url)
        return True

    cdef int _listen(self, Hooks hooks) except -1:
        """Make what listeners are told of."""
        cdef Hop hop = self.hop
        cdef Lane lane = hop.lane
        headers, params = hop.options.get("headers"), hop.options.get("params")
        hop.listeners = hooks.listeners
        hop.contexts = []
        if headers:
            hop.headers = hop.session._prepare_headers(headers)
        else:
            hop.headers = _CIMultiDict(lane.default_headers)
        self.headers_version = _getversion(hop.headers)
        self.url = hop.address.url.update_query(params) if params else hop.address.url
        self.cookies = self._cookie_field()
        return 0

    cdef object _cookie_field(self):
        cdef Hop hop = self.hop
        if not hop.lane.has_cookies():
            return None
        return hop.lane._cookies(hop.session, hop.address)

    cdef object _begin(self):
        return self._enter() if self.hop.listeners is None else self._tell()

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
        return self._enter() if self.part == Part.STARTING else self.resp

    cdef object _next_listener(self):
        cdef Hop hop = self.hop
        cdef Hooks hooks = hop.lane.hooks
        cdef Listeners listeners
        cdef tuple receivers
        cdef bint is_end = self.part == Part.ENDING
        while self.config_at < len(hop.listeners):
            listeners = <Listeners> hop.listeners[self.config_at]
            receivers = listeners.ends if is_end else listeners.starts
            if self.receiver_at == 0:
                if not is_end:
                    hop.contexts.append(listeners.new_context(trace_request_ctx=self.trace_request_ctx))
                if not receivers:
                    pass
                elif is_end:
                    self.params = hooks.end_params(hop.prepared.method, self.url, hop.headers, self.resp)
                else:
                    self.params = hooks.start_params(hop.prepared.method, self.url, hop.headers)
            if self.receiver_at < len(receivers):
                receiver = receivers[self.receiver_at]
                self.receiver_at += 1
                return as_coroutine(receiver(hop.session, hop.contexts[self.config_at], self.params))
            self.config_at += 1
            self.receiver_at = 0
        return None

    # Middlewares

    cdef object _enter(self):
        """Start the hop, under the clock."""
        cdef Hop hop = self.hop
        cdef bint is_native
        try:
            is_native = hop.listeners is None or self._is_as_before()
            if is_native and self.middlewares:
                hop.template = (<Hooks> hop.lane.hooks).template(hop)
                is_native = hop.template is not None
            if is_native and hop.clock is not None:
                hop.clock.enter()
        except BaseException as exc:
            return self._give_up(exc)
        if not is_native:
            return self._go_on(None, None)
        self.part = Part.INSIDE
        try:
            coroutine = self._new_attempt()
        except BaseException as exc:
            return self._go_on(None, exc)
        return self.delegate(coroutine)

    cdef bint _is_as_before(self) except -1:
        """Whether listeners have changed nothing that has a say in what is sent."""
        cdef Hop hop = self.hop
        cdef Lane lane = hop.lane
        return (
            _getversion(hop.headers) == self.headers_version
            and lane.is_current(hop.session) and lane.pool is hop.pool and hop.is_there()
            and self.cookies == self._cookie_field()
        )

    cdef object _new_attempt(self):
        cdef Hop hop = self.hop
        cdef dict options = hop.options
        if not self.middlewares:
            return hop(None)
        if hop.listeners is not None:
            hop.traces = hop.lane._traces(hop, len(hop.listeners))
        if options.get("json") is not None or options.get("data") is not None:
            hop.body = hop.lane._payload(hop)
            hop.value = hop.body._value
        if len(self.middlewares) == 1:
            plan = getattr(self.middlewares[0], "_plan", None)
            if type(plan) is Plan and (<Plan> plan).takes(hop):
                return (<Plan> plan).ask(hop)
        hop.req = hop.template.new_request(hop)
        if len(self.middlewares) == 1:
            return as_coroutine(self.middlewares[0](hop.req, hop))
        return as_coroutine(hop.lane._chain(hop, self.middlewares)(hop.req))

    cdef object _on_inner_done(self, object result):
        if self.part == Part.INSIDE:
            return self._answer(result)
        if self.part == Part.OUTSIDE:
            return result
        return self._tell()

    cdef object _on_inner_failed(self, object exc):
        if self.part == Part.INSIDE:
            return self._go_on(None, exc)
        if self.part == Part.OUTSIDE:
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
        self.part = Part.ENDING
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
            # A payload of ours needs no closing.
            body = PyDict_GetItemWithError(<dict> self.hop.req.__dict__, "_body")
            if body is not <PyObject*> self.hop.body:
                return False
        return True

    # On in Python

    cdef object _go_on(self, object resp, object exc):
        """Let Python go on with the hop: with its response, its exception, or from its start."""
        cdef Hop hop = self.hop
        if self.part == Part.INSIDE and hop.clock is not None:
            hop.clock.is_handed_over = True
        self.part = Part.OUTSIDE
        return self.delegate(hop.lane._go_on(hop, resp, exc))

    cdef object _give_up(self, object exc):
        """Let Python tell the listeners that code around the hop has failed."""
        cdef Hop hop = self.hop
        # Those that were told of the start.
        cdef Py_ssize_t count = 0
        if hop.listeners is not None:
            count = len(hop.listeners) if self.part == Part.ENDING else self.config_at
        self.part = Part.OUTSIDE
        return self.delegate(hop.lane._give_up(hop, self.resp, exc, count))

    cdef int _end(self) except -1:
        NativeCoroutine._end(self)
        self.hop = None
        self.middlewares = self.trace_request_ctx = self.params = self.resp = self.url = None
        return 0

    cdef str _name(self):
        return "ClientSession._request"
