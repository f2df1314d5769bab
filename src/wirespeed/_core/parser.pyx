"""One HTTP/1 response at a time, out of bytes. The only user of httptools. Called by the connection.

httptools wraps llhttp, the parser that aiohttp uses too, so both agree on what a valid
response is; this module adds what httptools leaves out: bounds on the head, responses
without a body (HEAD), bodies that end with the connection, NUL in values, and the bytes
that follow a message. It must not close anything or decide about reuse.
"""

import httptools
from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memchr

from wirespeed._core.limits cimport LINE_SLACK, INFORMATIONAL_MAX

cdef bytes HTTP_11 = b"HTTP/1.1 "


class HeadRefused(Exception):
    """The head breaks a rule or a limit that llhttp does not know."""


cdef inline bytes _without_trailing_space(bytes value):
    """Drop SP and HTAB at the end: llhttp drops them only at the start (RFC 9110 section 5.5)."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(value)
    cdef const char* text = PyBytes_AS_STRING(value)
    if size and (text[size - 1] == c" " or text[size - 1] == c"\t"):
        return value.rstrip(b" \t")
    return value


@cython.final
cdef class ResponseParser:
    """Parse the responses of one connection, one after the other.

    Args:
        lenient: accept bare LF, obsolete folding and spaces after a chunk size, as aiohttp
            does unless its debug mode is on.
    """

    def __init__(self, bint lenient=True):
        self.lenient = lenient
        self._fragments = []
        self.parts = []

    cdef object _new_llhttp(self, object callbacks):
        """Make a new llhttp state: httptools can neither reset one nor skip a body."""
        llhttp = httptools.HttpResponseParser(callbacks)
        if self.lenient:
            llhttp.set_dangerous_leniencies(
                lenient_headers=True,
                lenient_optional_cr_before_lf=True,
                lenient_spaces_after_chunk_size=True,
            )
        return llhttp

    cdef object _choose(self, object data):
        """The llhttp for a response of which this is the first read."""
        cdef PlainCallbacks callbacks
        cdef Py_buffer view
        cdef Py_ssize_t size
        cdef ResponseHead head
        self._is_plain = False
        if not self._skip_body:
            head = ResponseHead.__new__(ResponseHead)
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
            try:
                # Half: the limits count a name together with its value, or with the name before it.
                size = head.scan(
                    <const char*> view.buf, view.len, min(self._max_line_size, self._max_field_size) // 2,
                    self._max_headers,
                )
            finally:
                PyBuffer_Release(&view)
            if size > 0:
                self._is_plain = True
                self._reading = head
                if self._plain_llhttp is None:
                    callbacks = PlainCallbacks.__new__(PlainCallbacks)
                    callbacks.parser = self
                    self._plain_llhttp = self._new_llhttp(callbacks)
                return self._plain_llhttp
        if self._llhttp is None:
            self._llhttp = self._new_llhttp(self)
        return self._llhttp

    cpdef int begin(self, bint skip_body, Py_ssize_t max_line_size, Py_ssize_t max_field_size,
                    Py_ssize_t max_headers) except -1:
        """Expect the response to a request that is about to be sent."""
        if self._is_stale:
            # It stands in the middle of the last message, or behind it.
            self._is_stale = False
            if self._is_plain:
                self._plain_llhttp = None
            else:
                self._llhttp = None
        self._skip_body = skip_body
        self._max_line_size = max_line_size
        self._max_field_size = max_field_size
        self._max_headers = max_headers
        self.head = None
        self._reading = None
        self.error = None
        self.is_complete = False
        self.has_surplus = False
        self.is_upgraded = False
        self.body_size = 0
        self._head_size = 0
        self._line_size = 0
        self._informational = 0
        self._trailers = 0
        if self.parts:
            self.parts = []
        if self._fragments:
            self._fragments = []
        return 0

    cpdef int feed(self, object data) except -1:
        """Parse one read: bytes, or a memoryview of a buffer that is reused afterwards."""
        cdef bint in_head = self.head is None
        self._data = data
        if in_head and not self._fragments:
            llhttp = self._choose(data)
        else:
            llhttp = self._plain_llhttp if self._is_plain else self._llhttp
        try:
            llhttp.feed_data(data)
            if self.head is None:
                self._bound(bytes(data))
            elif self.head.chunked and not self.is_complete:
                if self.parts:
                    self._line_size = self._head_size = 0
                else:
                    # Chunk sizes, their extensions and trailers: bounded like a head.
                    self._bound(bytes(data))
            elif self._skip_body and self.head.chunked:
                # No callback tells of a chunk's size line after the head, or of half of one.
                if not b"".join([*self._fragments, bytes(data)]).endswith((b"\n\r\n", b"\n\n")):
                    self.has_surplus = True
        except HttpParserUpgrade:
            # 101: what follows is another protocol; the message itself is complete.
            self.has_surplus = True
            self.is_upgraded = True
            self._is_stale = True
            self.is_complete = True
        except HttpParserError as exc:
            self._is_stale = True
            if self.is_complete and self.head.status == 101:
                # Without Connection: upgrade it is a response like any other, but llhttp stops at its end.
                read = b"".join([*self._fragments, bytes(data)])
                if not read.endswith(b"\r\n\r\n") or read.count(b"\r\n\r\n") > 1 + self._informational:
                    self.has_surplus = True
            else:
                self.error = exc.__context__ if isinstance(exc, HttpParserCallbackError) else exc
        except HeadRefused as exc:
            self._is_stale = True
            self.error = exc
        if in_head and (self.head is None or self.error is not None):
            self._fragments.append(bytes(data))
        elif self._fragments and self.error is None:
            self._fragments = []
        self._data = None
        return 0

    cdef int _bound(self, bytes data) except -1:
        """Refuse a line, or lines, that outgrow their limit before they are whole: httptools keeps them."""
        cdef Py_ssize_t newline = data.rfind(b"\n")
        cdef Py_ssize_t limit = max(self._max_field_size, self._max_line_size)
        if newline < 0:
            self._line_size += PyBytes_GET_SIZE(data)
        else:
            self._line_size = PyBytes_GET_SIZE(data) - newline - 1
        self._head_size += PyBytes_GET_SIZE(data)
        if self._line_size > limit + LINE_SLACK:
            raise HeadRefused(f"Got more than {limit} bytes of one line")
        if self._head_size > (self._max_headers + 1) * (limit + LINE_SLACK):
            raise HeadRefused(f"Got {self._head_size} bytes without an end of the head or the chunk")
        return 0

    cdef int end_elsewhere(self, bint has_surplus) except -1:
        """The rest of the body was received without this parser, which stands in the middle of it."""
        self.is_complete = True
        self.has_surplus = has_surplus
        self._is_stale = True
        return 0

    cpdef list unfinished_head(self):
        """What was read of a head that did not end or is malformed, read by read."""
        return self._fragments

    cpdef bint ends_with_connection(self) noexcept:
        """Whether the end of the connection completes the message (RFC 9112 section 6.3, rule 8)."""
        return (
            self.head is not None and not self.is_complete and self.error is None
            and not self.head.chunked and self.head.content_length < 0
        )

    cdef int release(self) except -1:
        """Break the reference cycle with httptools; the parser is of no more use."""
        self._llhttp = self._plain_llhttp = None
        return 0

    # httptools' callbacks

    def on_message_begin(self):
        if self.is_complete:
            self.has_surplus = True
            return
        self._reading = ResponseHead.__new__(ResponseHead)
        self._reading.read = []
        self._name_size = 0
        self._is_refused = False

    def on_status(self, bytes text):
        cdef ResponseHead head = self._reading
        if self.is_complete:
            return
        head._reason = text if head._reason is None else head._reason + text
        if PyBytes_GET_SIZE(head._reason) > self._max_line_size:
            raise HeadRefused(f"Got more than {self._max_line_size} bytes of reason phrase")

    def on_header(self, bytes name, bytes value):
        cdef ResponseHead head = self._reading
        if self.is_complete:
            return
        self._bound_field(name, value)
        if self.head is not None:
            self._trailers += 1
            if len(head.read) + self._trailers > self._max_headers:
                raise HeadRefused("Too many trailers received")
            return
        value = _without_trailing_space(value)
        if memchr(PyBytes_AS_STRING(value), 0, PyBytes_GET_SIZE(value)) is not NULL:
            raise HeadRefused(f"NUL in the value of {name!r} (RFC 9110 section 5.5)")
        head.read.append((name, value))
        if len(head.read) > self._max_headers:
            raise HeadRefused("Too many headers received")
        if PyBytes_GET_SIZE(name) == 18 and name.lower() == b"sec-websocket-key1":
            # The handshake of a draft of WebSocket that nobody speaks; aiohttp refuses it.
            self._is_refused = True
        head.classify(name, value)

    cdef int _bound_field(self, bytes name, bytes value) except -1:
        """Refuse a field larger than max_field_size, counted as aiohttp counts.

        That is: a name with the name before it, the first value with its name, any other alone.
        """
        cdef Py_ssize_t size = PyBytes_GET_SIZE(name)
        if self._name_size + size > self._max_field_size or PyBytes_GET_SIZE(value) > self._max_field_size:
            raise HeadRefused(f"Got more than {self._max_field_size} bytes of one field")
        if self._name_size == 0 and size + PyBytes_GET_SIZE(value) > self._max_field_size:
            raise HeadRefused(f"Got more than {self._max_field_size} bytes of one field")
        self._name_size = size
        return 0

    def on_headers_complete(self):
        cdef ResponseHead head = self._reading
        cdef object data = self._data
        if self.is_complete:
            return
        if self._is_refused:
            raise HeadRefused("Sec-WebSocket-Key1 in a response")
        head.status = self._llhttp.get_status_code()
        if 100 <= head.status < 200 and head.status != 101:
            self._informational += 1
            if self._informational > INFORMATIONAL_MAX:
                raise HeadRefused(f"More than {INFORMATIONAL_MAX} interim responses")
            return
        if not self._fragments and not self._informational and data[:9] == HTTP_11:
            head.major = head.minor = 1
        else:
            major, _, minor = self._llhttp.get_http_version().partition(".")
            head.major, head.minor = int(major), int(minor)
        head.keep_alive = self._llhttp.should_keep_alive()
        head.no_body = self._skip_body or head.status in (101, 204, 304)
        self.head = head
        if self._skip_body:
            # llhttp would wait for the body that a response to HEAD does not have.
            self.is_complete = True
            self._is_stale = True

    def on_body(self, bytes data):
        if self.is_complete:
            self.has_surplus = True
            return
        if self.head is None:
            # llhttp knows 100 to 103 as bodiless; another interim response may bring a body.
            return
        self.body_size += PyBytes_GET_SIZE(data)
        self.parts.append(data)

    def on_chunk_complete(self):
        if self.is_complete:
            self.has_surplus = True
        elif self.head is not None:
            self.parts.append(None)

    def on_message_complete(self):
        if self.head is not None:
            self.is_complete = True
        else:
            self._reading = None


@cython.final
cdef class PlainCallbacks:
    """httptools' callbacks for a response whose head was read already: those that are missing cost most."""

    def on_headers_complete(self):
        cdef ResponseParser parser = self.parser
        cdef ResponseHead head = parser._reading
        if parser.head is None:
            head.keep_alive = parser._plain_llhttp.should_keep_alive()
            head.no_body = head.status == 204 or head.status == 304
            parser.head = head

    def on_body(self, bytes data):
        self.parser.on_body(data)

    def on_message_complete(self):
        self.parser.is_complete = True

    def on_message_begin(self):
        if self.parser.is_complete:
            self.parser.has_surplus = True
