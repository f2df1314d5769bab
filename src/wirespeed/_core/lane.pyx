"""What the express lane keeps of a session, and how it makes heads of it. Called by the request.

The heads of plain requests are kept whole; others are put together from shapes. Everything is forgotten when
something has changed in the session that heads are made of, which is compared at each request, since programs
assign these attributes as they like. It must not send anything, nor know aiohttp: what is aiohttp's
to decide, a subclass in Python asks it.
"""

from multidict import getversion

cimport cython
from cpython.dict cimport PyDict_GetItemWithError
from cpython.object cimport PyObject
from libc.math cimport ceil

from wirespeed._core.address cimport as_url, plain_address
from wirespeed._core.head cimport assemble, field_lines, plain_query
from wirespeed._core.instances cimport new_instance
from wirespeed._core.limits cimport INLINE_BODY_MAX

cdef object _getversion = getversion

cdef extern from "Python.h":
    object PyObject_GenericGetDict(object thing, void* context)

# The attributes of a session that heads are made of, or that decide what may be done with a request.
cdef tuple NAMES = (
    "_default_headers", "_skip_auto_headers", "_default_auth", "_version", "_base_url",
    "_trust_env", "_default_proxy", "_response_class", "_request_class", "_middlewares", "_trace_configs",
    "_cookie_jar", "_timeout", "_raise_for_status", "_resolve_charset", "_json_serialize",
    "_json_serialize_bytes", "_auto_decompress", "_read_bufsize", "_max_line_size", "_max_field_size",
    "_max_headers",
)
# Kinds of body
cdef enum:
    NO_BODY = 0
    JSON
    BYTES
    TEXT
# Addresses that are kept, and plain requests of a method; and those that are not, for want of room, before
# all make room.
cdef enum:
    KEPT_MAX = 4096
    PASSED_OVER_MAX = 16384
# Origins and the shapes of an origin that are kept; emptied when full.
cdef enum:
    ORIGINS_MAX = 4096
    SHAPES_MAX = 256


@cython.final
cdef class Kept:
    """See lane.pxd."""

    def __cinit__(self):
        self.clear()

    cpdef object get(self, object key):
        """What is kept, or None."""
        return self.things.get(key)

    cpdef int put(self, object key, object thing) except -1:
        """Keep something, where there is room."""
        if len(self.things) >= KEPT_MAX:
            # To keep what never comes again is work for nothing; what does come again will be here in time.
            self.passed_over += 1
            if self.passed_over < PASSED_OVER_MAX:
                return 0
            self.clear()
        self.things[key] = thing
        return 0

    cpdef int clear(self) except -1:
        """Make room."""
        self.things = {}
        self.passed_over = 0
        return 0


@cython.final
cdef class Shape:
    """What the requests of one shape have in common.

    Args:
        fields: the header fields in order; instead of a value that is the request's own, its number.
    """

    def __init__(self, list fields not None):
        self.fields = fields
        self.order = [value for _, value in fields if isinstance(value, int)]
        self.pieces = []
        piece = b""
        for name, value in fields:
            if isinstance(value, int):
                self.pieces.append(piece + name.encode() + b": ")
                piece = b"\r\n"
            else:
                piece += field_lines([(name, value)])
        self.pieces.append(piece + b"\r\n")
        field_lines([(name, "") for name, _ in fields])  # raises for what is no name


cdef class Prepared:
    """One request as the core takes it.

    Args:
        method: upper-case.
        real_url: the URL, fragment included; not used here.
        key: the connection key.
        data: the head; b"" while it is not made.
        skip_body: the response has none whatever it says: the method is HEAD.
    """

    def __init__(self, str method, real_url, key, bytes data, bint skip_body):
        self.method = method
        self.url = real_url
        self.key = key
        self.data = data
        self.skip_body = skip_body

    @property
    def real_url(self):
        """The URL, fragment included; made when it is asked for."""
        self.url = as_url(self.url)
        if self.query is not None:
            self.url, self.query = self.url.extend_query(self.query), None
        return self.url


@cython.final
cdef class Times:
    cdef double coarse(self, double now, double seconds) noexcept:
        """When `seconds` from now is, on a whole second from the threshold on, as aiohttp has it."""
        cdef double when = now + seconds
        return ceil(when) if seconds >= self.ceil_threshold else when

    cdef double connecting(self, double now, double seconds) noexcept:
        """The same of the times for connecting, which aiohttp rounds up above the threshold only."""
        cdef double when = now + seconds
        return ceil(when) if seconds > self.ceil_threshold else when


cdef double _seconds(object value) except -1:
    return value if value is not None and value > 0 else 0


cdef class Lane:
    """What the express lane keeps of one session. Subclassed in Python, where all it cannot do is done.

    Args:
        watch: of the classes that tools patch.
        response_class: of the responses.
        methods: those of which heads are kept.
        prepared_class: of what `_find` returns, derived from Prepared.
        sentinel: as a timeout, it stands for the session's.
    """

    def __init__(self, Watch watch not None, response_class, methods, prepared_class, sentinel):
        self.prepared_class = prepared_class
        self.addresses = Kept()
        self.origins = {}
        self.sentinel = sentinel
        self.watch = watch
        self.response_class = response_class
        self.plain = {method: Kept() for method in methods}

    # What a session is made of

    cdef bint is_current(self, object session) except -1:
        """Whether nothing has changed of what the heads, and the choice of the lane, rest on."""
        cdef dict own = PyObject_GenericGetDict(session, NULL)
        cdef dict connector
        cdef Py_ssize_t i
        cdef PyObject* value
        if len(own) != self.count or self.generation != self.watch.generation:
            return False
        if not self.watch.is_unchanged() or not self.own_watch.is_unchanged():
            return False
        for i in range(len(NAMES)):
            value = PyDict_GetItemWithError(own, NAMES[i])
            if value is NULL or value is not <PyObject*> self.values[i]:
                return False
        value = PyDict_GetItemWithError(own, "_connector")
        if value is NULL or value is <PyObject*> None:
            return False
        connector = PyObject_GenericGetDict(<object> value, NULL)
        return (
            # The pool stands for the connector, which is not to live longer for us.
            len(connector) == self.connector_count
            and PyDict_GetItemWithError(connector, "pool") is <PyObject*> self.pool
            and _getversion(self.default_headers) == self.headers_version
            and (
                not self.is_usual_jar
                or len(<dict> PyObject_GenericGetDict(self.cookie_jar, NULL)) == self.jar_count
            )
        )

    cdef bint has_cookies(self) except -1:
        """Whether there are any, in a jar that is usual."""
        return not self.is_dummy_jar and bool(self.cookie_jar._cookies)

    def renew(self, session):
        """Look at the session anew, and forget what was made of it.

        Returns:
            Whether its requests are the express lane's, but for their options.
        """
        cdef dict own = session.__dict__
        cdef Kept kept
        self.count = -1
        for kept in self.plain.values():
            kept.clear()
        self.addresses.clear()
        self.origins.clear()
        self.is_plain = False
        self.values = [own.get(name) for name in NAMES]
        self.pool = None
        connector = session._connector
        if connector is None or self._is_full(session):
            return False
        self.default_headers = session._default_headers
        self.headers_version = _getversion(self.default_headers)
        self.connector_count = len(connector.__dict__)
        self.pool = connector.pool
        self.cookie_jar = session._cookie_jar
        self.resolve_charset = session._resolve_charset
        self.raise_for_status = session._raise_for_status
        self.trace_configs = session._trace_configs
        self.middlewares = session._middlewares
        self.json_serialize = session._json_serialize
        self.json_serialize_bytes = session._json_serialize_bytes
        self.settings = self._new_settings(session)
        self.times = self.other_times = self._new_times(session._timeout)
        self.is_plain, self.is_usual_jar = self._is_plain(session)
        self.jar_count = len(session._cookie_jar.__dict__) if self.is_usual_jar else 0
        self.is_dummy_jar = self.is_usual_jar and not hasattr(session._cookie_jar, "_cookies")
        self.generation = self.watch.generation
        # Perhaps derived by the user, who may change them as well.
        self.own_watch = Watch(type(session), type(connector))
        self.own_watch.remember()
        self.count = len(own)
        return True

    def _new_times(self, given):
        cdef Times times = Times.__new__(Times)
        timeout = self._timeout_of(given)
        times.given = given
        times.timeout = timeout
        times.total = _seconds(timeout.total)
        times.connect = _seconds(timeout.connect)
        times.sock_connect = _seconds(timeout.sock_connect)
        times.sock_read = timeout.sock_read or 0
        times.ceil_threshold = timeout.ceil_threshold
        return times

    cdef Times times_of(self, object timeout):
        """The times of a request that gives its own."""
        if timeout is self.times.given:
            return self.times
        if timeout is not self.other_times.given:
            self.other_times = self._new_times(timeout)
        return self.other_times

    # Making a head

    cdef Prepared kept(self, object method, object str_or_url):
        """A plain request that is kept ready, or None."""
        cdef Kept kept = self.plain.get(method)
        return None if kept is None else kept.get(str_or_url)

    cdef int keep(self, Prepared prepared, object str_or_url) except -1:
        """Keep a plain request ready for the next time."""
        cdef Kept kept = self.plain[prepared.method]
        return kept.put(str_or_url, prepared)

    cdef object fit(self, object session, object method, object str_or_url, dict options):
        """Put a request together from a shape.

        Returns:
            A Prepared; or the options of a request that has no shape.
        """
        cdef Address address
        cdef Shape shape
        cdef bytes body = b""
        cdef str target, query = None
        cdef list values
        cdef int kind = _kind_of(options)
        params, headers = options.get("params"), options.get("headers")
        if method not in self.plain:
            method = method.upper()
        if kind < 0 or method not in self.plain or (headers is not None and type(headers) is not dict):
            return options
        address = self._address(session, str_or_url)
        if address is None:
            return options
        url, target = address.given, address.target
        if params:
            query = plain_query(params)
            if query is None:
                url = address.url.extend_query(params)
                target = url.raw_path_qs
            else:
                target = f"{target}{address.joint}{query}"
        cookies = self._cookies(session, address)
        shape = self._shape(session, address, method, headers, kind, cookies is not None)
        if shape is None:
            return options
        values = [] if headers is None else list((<dict> headers).values())
        if kind != NO_BODY:
            made = self._body(options, kind)
            if type(made) is not bytes or len(<bytes> made) > INLINE_BODY_MAX:
                # To be sent in pieces, or refused; JSON was serialized already, and once is enough.
                return self._as_data(options, made) if kind == JSON else options
            body = made
            values.append(str(len(body)))
        if cookies is not None:
            values.append(cookies)
        data = assemble(method, target, shape.pieces, shape.order, values, body)
        return self._new_shaped(method, url, query, address.origin, shape, values, body, data)

    cdef Prepared _new_shaped(self, str method, object url, object query, Origin origin, Shape shape,
                              list values, bytes body, bytes data):
        cdef Prepared prepared
        if origin.host is None or origin.host.is_evicted:
            origin.host = self.pool.host(origin.key)
        prepared = self._new_prepared(method, url, origin.key, origin.host, data)
        prepared.query = query
        prepared.shape = shape
        prepared.values = values
        prepared.body = body
        return prepared

    cdef Prepared _new_prepared(self, str method, object url, object key, Host host, bytes data):
        cdef Prepared prepared = new_instance(self.prepared_class)
        prepared.method = method
        prepared.url = url
        prepared.key = key
        prepared.host = host
        prepared.data = data
        prepared.skip_body = method == "HEAD"
        return prepared

    cdef object _cookies(self, object session, Address address):
        """The value of the field Cookie, or None."""
        cdef dict jar
        if not self.is_usual_jar:
            return self._ask_jar(session, address.url)
        if not self.has_cookies():
            return None
        jar = self.cookie_jar.__dict__
        # No query has a say in it.
        text = address.without_query()
        if text is not None:
            address = self._address(session, text)
        if address.cookies is not None and address.cookies.holds(jar):
            address.cookies.touch(jar)
        else:
            address.cookies = self._remember_cookies(session, address.url)
            if address.cookies is None:
                return self._ask_jar(session, address.url)
        return address.cookies.value

    cdef Shape _shape(self, object session, Address address, str method, dict headers, int kind,
                      bint has_cookies):
        """The shape of a request, new or known; None where it has none."""
        cdef dict shapes = address.origin.shapes
        at = (method, kind, has_cookies) if headers is None else (method, kind, has_cookies, *headers)
        shape = shapes.get(at, self)
        if shape is self:
            shape = self._new_shape(session, method, address.url, headers, kind, has_cookies)
            if len(shapes) >= SHAPES_MAX:
                shapes.clear()
            shapes[at] = shape
        return shape

    cdef object _body(self, dict options, int kind):
        if kind == JSON:
            value = options["json"]
            if self.json_serialize_bytes is not None:
                return self.json_serialize_bytes(value)
            return self.json_serialize(value).encode()
        return options["data"] if kind == BYTES else (<str> options["data"]).encode()

    cdef Address _address(self, object session, object str_or_url):
        """Where a request goes; None for one whose head is not made of shapes."""
        cdef Address found = self.addresses.get(str_or_url)
        if found is None:
            if type(str_or_url) is str:
                found = plain_address(<str> str_or_url, self.origins)
            if found is None:
                found = self._locate(session, str_or_url)
            if found is not None:
                self.addresses.put(str_or_url, found)
        return found

    def origin(self, str name not None, make_key):
        """The Origin of scheme, host and port, new or known.

        Args:
            name: the three as a URL, as yarl writes it.
            make_key: called for its connection key.
        """
        found = self.origins.get(name)
        if found is None:
            if len(self.origins) >= ORIGINS_MAX:
                self.origins.clear()
            found = self.origins[name] = Origin(make_key())
        return found


cdef int _kind_of(dict options) except -2:
    """The kind of a body, or -1 for one too many, one too long, or one that is no str or bytes."""
    data = options.get("data")
    if options.get("json") is not None:
        return JSON if data is None else -1
    if data is None:
        return NO_BODY
    if (type(data) is not bytes and type(data) is not str) or len(data) > INLINE_BODY_MAX:
        return -1
    return BYTES if type(data) is bytes else TEXT
