"""One request and its response. Fed by the connection, read by the facade's response.

A body is kept in `parts` until somebody asks: `take_body` for the whole, or `attach` for a
stream (aiohttp's StreamReader), which then gets what there is and all that comes. Reading
from the socket pauses when more than `high_water` bytes wait and nobody asked for all of
them. It must not know HTTP beyond what the parser found, nor decide about reuse.
"""

cimport cython

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.math cimport ceil
from libc.string cimport memcpy

from wirespeed._core.limits cimport (
    BLOCK_BODIES, BLOCK_MAX, BLOCK_MIN, CHUNKS_MAX, COARSE_FROM, COUNTED_MAX, COUNTED_MIN,
)

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject** text, Py_ssize_t size) except -1


# Bytes of the longest body that memory was kept for.
cdef Py_ssize_t _longest = 0


cdef int _keep_memory(Py_ssize_t size) except -1:
    """Have malloc keep the memory of bodies for the next ones.

    glibc gives free memory back to the system at once (128 KiB of it) until a large block is freed, and twice
    that block's size from then on. Without it page faults are half of what a body of 10 MB costs.
    """
    global _longest
    if size > _longest:
        _longest = size
        PyMem_RawFree(PyMem_RawMalloc(min(max(size * BLOCK_BODIES, BLOCK_MIN), BLOCK_MAX)))
    return 0


cdef class ReadGate:
    cdef int _pause(self) except -1:
        raise NotImplementedError

    cdef int _resume(self) except -1:
        raise NotImplementedError

    cdef int _drop(self, CloseReason reason) except -1:
        raise NotImplementedError

    cdef object _get_transport(self):
        raise NotImplementedError


@cython.final
cdef class ExchangeSettings:
    """What the exchanges of a session have in common.

    Args:
        max_line_size: bytes of the reason phrase.
        max_field_size: bytes of a field's name and value together.
        max_headers: number of fields.
        high_water: bytes of body that are kept before reading from the socket pauses.
        make_sink: called with the exchange when a response has a Content-Encoding; returns an
            object with StreamReader's feeding methods, or None. None: never decode.
        max_body: bytes of a body, beyond which the exchange fails; None for any number.
        translate: called with the exchange, a Failure, an exception or None, and what was read
            of an unfinished head; returns the exception that the caller gets.
    """

    def __init__(self, *, Py_ssize_t max_line_size, Py_ssize_t max_field_size,
                 Py_ssize_t max_headers, Py_ssize_t high_water, make_sink, translate, max_body=None):
        self.max_line_size = max_line_size
        self.max_field_size = max_field_size
        self.max_headers = max_headers
        self.high_water = high_water
        self.max_body = -1 if max_body is None else max_body
        self.make_sink = make_sink
        self.translate = translate


@cython.final
cdef class Exchange(Deadline):
    """One request and its response; made by `Connection.send`."""

    # Response in

    cdef int _on_interim(self) except -1:
        """A 1xx response came: the server wants the body (RFC 9110 section 10.1.1)."""
        if not self.may_continue.done():
            self.may_continue.set_result(True)
        self.may_continue = None
        return 0

    cdef int _on_head(self, ResponseHead head) except -1:
        self.head = head
        if self.upload is not None and self.read_timeout > 0:
            # Silence counts from the first byte of the answer, whether or not the request is sent.
            self.last_read = self.deadlines.time()
            self._arm()
        if head.content_encoding is not None and not head.no_body and self.settings.make_sink is not None:
            self.sink = self.settings.make_sink(self)
            if self.sink is not None and head.chunked:
                self.sink.begin_http_chunk_receiving()
        return 0

    cdef int _on_body(self, list parts, Py_ssize_t size) except -1:
        self.body_size = size
        if 0 <= self.settings.max_body < size:
            return self._fail(Failure.BODY_TOO_LARGE, None, None)
        if self.sink is not None:
            return self._push(parts)
        if self.parts is None:
            self.parts = parts
        else:
            self.parts.extend(parts)
        if not self.wants_all and not self.is_paused and (
            size > self.settings.high_water or len(self.parts) > CHUNKS_MAX
        ):
            self.pause_reading()
        return 0

    cdef int _on_complete(self) except -1:
        """The last byte was received; the connection has been given back already."""
        self.is_complete = True
        self.is_paused = False
        self._unlink()
        if self.sink is not None:
            self._push_eof()
        if self.on_end is not None:
            self._tell_end()
        return 0

    # A body of known length, without the parser

    cdef bint _can_count(self, ResponseParser parser) except -1:
        """Whether the rest of the body is only so many bytes, to be kept until somebody asks for all."""
        cdef ResponseHead head = self.head
        return (
            self.sink is None and not head.chunked and not head.no_body and not parser.is_complete
            and parser.error is None and head.content_length - self.body_size > COUNTED_MIN
            and head.content_length <= (COUNTED_MAX if self.wants_all else self.settings.high_water)
        )

    cdef int _begin_whole(self) except -1:
        """Make the whole body's place, with a byte more: what comes there does not belong to it."""
        cdef Py_ssize_t at = 0
        cdef bytes part
        cdef char* text
        _keep_memory(<Py_ssize_t> self.head.content_length)
        self.whole = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> self.head.content_length + 1)
        text = PyBytes_AS_STRING(self.whole)
        for part in self.parts or ():
            memcpy(text + at, PyBytes_AS_STRING(part), len(part))
            at += len(part)
        self.parts = None
        return 0

    cdef int _count_in(self, const char* data, Py_ssize_t size) except -1:
        """Take bytes of the body; they may be in their place already.

        Args:
            data: where they are; NULL for in `whole`.
            size: how many; no more than there are to come.
        """
        if self.whole is None:
            return self._on_body([PyBytes_FromStringAndSize(data, size)], self.body_size + size)
        if data is not NULL:
            memcpy(PyBytes_AS_STRING(self.whole) + self.body_size, data, size)
        self.body_size += size
        return 0

    cdef int _seal(self) except -1:
        """The body is complete: cut off the byte that is none of it."""
        cdef PyObject* whole = <PyObject*> self.whole
        if self.whole is None:
            return 0
        Py_INCREF(self.whole)
        self.whole = None
        _PyBytes_Resize(&whole, <Py_ssize_t> self.head.content_length)
        self.parts = [<object> whole]
        Py_DECREF(<object> whole)
        return 0

    cdef int _tell_end(self) except -1:
        """Call the observer; its failing is its own trouble."""
        on_end, self.on_end = self.on_end, None
        try:
            on_end(self)
        except Exception as exc:
            self.loop.call_exception_handler(
                {"message": "Error in an observer of requests", "exception": exc}
            )
        return 0

    cdef int _cut(self) except -1:
        """The answer is complete: stop the upload, its progress noted while the transport still tells it."""
        upload, self.upload = self.upload, None
        if self.before_cut is not None:
            self.before_cut()
        upload.cancel()
        return 0

    cdef int _wake(self) except -1:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
        return 0

    cdef int _fail(self, Failure failure, object exc, list raw) except -1:
        """End the exchange early: close its connection and give the error to whoever waits."""
        cdef ReadGate gate = self.gate
        if self.is_complete or self.error is not None:
            return 0
        self._unlink()
        self.gate = None
        self.failure = failure
        if self.upload is not None:
            self.upload.cancel()
            self.upload = None
        if gate is not None:
            gate._drop(_CLOSES[<int> failure])
        self.error = error = self._translate(failure, exc, raw)
        if self.sink is not None:
            self.sink.set_exception(error)
        if self.on_end is not None:
            self._tell_end()
        # A body that cannot be decoded is the reader's trouble; its head is a good answer.
        if self.waiter is not None and not self.waiter.done() and (
            failure != Failure.BAD_CONTENT or self.wants_all
        ):
            self.waiter.set_exception(error)
            # Whoever waited may be gone: then nobody is to be told that nobody asked.
            self.waiter.exception()
        return 0

    cdef object _translate(self, Failure failure, object exc, list raw):
        """Ask the facade for the caller's exception; its failing is an error to deliver too."""
        try:
            return self.settings.translate(self, failure, exc, raw)
        except Exception as broken:
            return broken

    # Body out

    cdef int _push(self, list parts) except -1:
        """Hand parts to the sink until it is full; the rest is held until it reads on."""
        cdef Py_ssize_t i
        if self.held is not None:
            self.held.extend(parts)
            return 0
        for i in range(len(parts)):
            part = parts[i]
            try:
                if part is None:
                    self.sink.end_http_chunk_receiving()
                    continue
                self.has_more = self.sink.feed_data(part, len(<bytes> part))
                while self.has_more and not self.is_paused:
                    self.has_more = self.sink.feed_data(b"", 0)
            except Exception as exc:
                return self._fail_sink(exc)
            if self.has_more:
                self.held = parts[i + 1:]
                return 0
        return 0

    cdef int _push_held(self) except -1:
        """The sink has room again: first more of the same input, then what was held."""
        cdef list held
        try:
            while self.has_more and not self.is_paused:
                self.has_more = self.sink.feed_data(b"", 0)
        except Exception as exc:
            return self._fail_sink(exc)
        if self.has_more:
            return 0
        held, self.held = self.held, None
        if held:
            self._push(held)
        if self.eof_pending:
            self._push_eof()
        return 0

    cdef int _push_eof(self) except -1:
        """End the sink's stream, or note that it has to end once it took what is held."""
        self.eof_pending = self.held is not None or self.has_more
        if self.eof_pending:
            return 0
        try:
            self.sink.feed_eof()
        except Exception as exc:
            return self._fail_sink(exc)
        return 0

    cdef int _fail_sink(self, object exc) except -1:
        """The body cannot be decoded: the reader gets the error, the connection is not reused."""
        self.has_more = False
        self.held = None
        if self.is_complete:
            self.error = self._translate(Failure.BAD_CONTENT, exc, None)
            self.sink.set_exception(self.error)
            return 0
        return self._fail(Failure.BAD_CONTENT, exc, None)

    def attach(self, sink):
        """Hand the body to a stream: what was received now, the rest as it comes.

        Args:
            sink: an object with StreamReader's feeding methods.

        Raises:
            RuntimeError: the body has a sink already.
        """
        cdef list parts = self.parts
        if self.sink is not None:
            raise RuntimeError("The body has a reader already")
        if self.whole is not None:
            parts = [self.whole[:self.body_size]]
            self.whole = None
        self.sink = sink
        self.parts = None
        # Buffering paused the transport; from here on the sink does.
        self.is_paused, was_paused = False, self.is_paused
        if self.head is not None and self.head.chunked:
            sink.begin_http_chunk_receiving()
        if parts is not None:
            self._push(parts)
        if self.error is not None:
            sink.set_exception(self.error)
        elif self.is_complete:
            self._push_eof()
        elif was_paused and not self.is_paused and self.gate is not None:
            self.last_read = self.deadlines.time()
            self.gate._resume()
        # Whoever waits for the whole body goes on with the stream.
        self._wake()

    cpdef bytes take_body(self):
        """Return the whole body, or None while it is not complete or when a stream has it."""
        cdef list parts
        if self.sink is not None:
            return None
        if not self.is_complete and (self.head is None or not self.head.no_body):
            return None
        parts = self.parts
        if parts is None:
            return b""
        if len(parts) == 1 and parts[0] is not None:
            return parts[0]
        body = b"".join([part for part in parts if part is not None])
        self.parts = [body]
        return body

    def wait_body(self):
        """Return a future that is done when the whole body was received.

        Raises:
            RuntimeError: another coroutine waits for this response already.
        """
        if self.waiter is not None and not self.waiter.done():
            raise RuntimeError(
                "readany() called while another coroutine is already waiting for incoming data"
            )
        self.wants_all = True
        self.waiter = self.loop.create_future()
        if self.error is not None:
            self.waiter.set_exception(self.error)
        elif self.is_complete:
            self.waiter.set_result(None)
        elif self.is_paused:
            self.resume_reading()
        return self.waiter

    @property
    def transport(self):
        """The transport that the response comes on; None once the exchange is over."""
        return None if self.gate is None else self.gate._get_transport()

    # What a StreamReader asks of its protocol

    @property
    def connected(self):
        """Whether more of the body may come."""
        return self.gate is not None or self.eof_pending

    def pause_reading(self):
        """Stop reading from the socket: the reader is behind."""
        if not self.is_paused:
            self.is_paused = True
            if self.gate is not None:
                self.gate._pause()

    def resume_reading(self, bint resume_parser=True):
        """Read on: the reader has room."""
        if not self.is_paused and not self.has_more:
            return
        self.is_paused = False
        if resume_parser and (self.has_more or self.held is not None):
            self._push_held()
        if not self.is_paused and self.gate is not None:
            self.last_read = self.deadlines.time()
            self.gate._resume()

    # Request out

    def set_upload(self, task, before_cut=None):
        """Name the task that sends the request body; it is cancelled when the exchange ends.

        Args:
            task: the task.
            before_cut: called without arguments before a complete response ends it, with the
                connection still open.
        """
        self.before_cut = before_cut
        if self.error is not None or self.is_complete:
            task.cancel()
        else:
            self.upload = task

    def wait_continue(self, future):
        """Have a future done when an interim (1xx) response comes."""
        self.may_continue = future

    def finish_upload(self, bint is_whole=True):
        """The body was sent: from now on the server is expected to answer.

        Args:
            is_whole: the server can find its end; else the connection must not be reused.
        """
        self.upload = None
        if not is_whole:
            self.is_unclean = True
        self.upload_at = self.deadlines.now()
        if self.gate is not None and self.read_timeout > 0:
            self.last_read = self.deadlines.time()
            self._arm()

    def fail_upload(self, exc):
        """The request body could not be sent: `exc` goes to the caller unless a response has come."""
        self.upload = None
        self.is_unclean = True
        if self.head is None:
            self._fail(Failure.BAD_UPLOAD, exc, None)
        else:
            self.finish_upload()

    def cut_upload(self):
        """The upload was cancelled: what was sent is not a whole request."""
        self.upload = None
        self.is_unclean = True
        self._fail(Failure.CONNECTION_LOST, None, None)

    cpdef int abandon(self) except -1:
        """Let go of the response; its connection is closed unless the exchange is over."""
        return self._fail(Failure.LET_GO, None, None)

    cpdef int forget(self) except -1:
        """Drop the error of an exchange that failed before its head: its traceback holds the exchange."""
        self.waiter = self.error = None
        return 0

    # Deadlines

    cdef int _start(self, Deadlines deadlines, double total_at, double read_timeout,
                    bint has_upload) except -1:
        self.deadlines = deadlines
        self.total_at = total_at
        self.read_timeout = read_timeout
        if read_timeout > 0 and not has_upload:
            self.last_read = deadlines.time()
            self._arm()
        elif total_at > 0:
            deadlines.set(self, total_at)
        return 0

    cdef int _arm(self) except -1:
        """Set the earlier of the two deadlines; the one for reading moves on with every read."""
        cdef double when = self.total_at
        cdef double read_at
        if self.read_timeout > 0 and self._is_timed():
            read_at = self._read_at()
            if when <= 0 or read_at < when:
                when = read_at
        if when > 0:
            self.deadlines.set(self, when)
        return 0

    cdef bint _is_timed(self) noexcept:
        """Whether the server is the one to act: it has the whole request, or has begun to answer."""
        return self.upload is None or self.head is not None

    cdef double _read_at(self) noexcept:
        """When the server has been silent for too long, coarse for long timeouts."""
        cdef double when = self.last_read + self.read_timeout
        return when if self.read_timeout < COARSE_FROM else ceil(when)

    cdef int _on_deadline(self, double now) except -1:
        if self.total_at > 0 and now >= self.total_at:
            return self._fail(Failure.TOTAL_TIMEOUT, None, None)
        if self.read_timeout <= 0 or not self._is_timed():
            return self._arm()
        if self.is_paused:
            # sock_read measures the server; this pause is the reader's.
            self.last_read = now
        elif self._read_at() <= now:
            return self._fail(Failure.READ_TIMEOUT, None, None)
        return self._arm()


cdef CloseReason[9] _CLOSES
_CLOSES[:] = [
    CloseReason.MALFORMED,
    CloseReason.LOST,
    CloseReason.TIMED_OUT,
    CloseReason.TIMED_OUT,
    CloseReason.MALFORMED,
    CloseReason.UPLOAD_UNFINISHED,
    CloseReason.ABANDONED,
    CloseReason.POOL_CLOSED,
    CloseReason.ABANDONED,
]
