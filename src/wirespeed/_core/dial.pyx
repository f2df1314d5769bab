"""A dial to a known address, without a task. Started by the request and by the connector.

The loop connects (`create_connection`, a coroutine), and what it waits for drives it on, so nobody's task
has to: the caller may go away, or be served otherwise, and what was dialled joins the pool. It must not
resolve names, nor know TLS, proxies or aiohttp: whoever starts it found that none is needed.
"""

import asyncio

cimport cython
from cpython.object cimport PyObject

from wirespeed._core.hosts import ConnectTimeout, PoolClosed

from wirespeed._core.figures cimport ConnectionFacts

cdef extern from "Python.h":
    int PyIter_Send(object iterator, object argument, PyObject** result) except -1
    void Py_DECREF(PyObject* thing)

# What PyIter_Send returns at the end; an error is -1.
cdef enum:
    GEN_RETURN = 0


@cython.final
@cython.no_gc
cdef class DialDeadline(Deadline):
    cdef int _on_deadline(self, double now) except -1:
        return (<Dial> self._dial)._on_late()


@cython.final
cdef class Dial:
    """One dial; to the loop it is the protocol, and its factory, until the connection is made."""

    def __cinit__(self):
        self.deadline = DialDeadline.__new__(DialDeadline)
        self.deadline._dial = <void*> self

    def __repr__(self):
        return f"<Dial {'done' if self.done() else 'under way'} address={self.address!r}>"

    cdef int _start(self, double at) except -1:
        cdef Pool pool = self.pool
        self.began = pool.deadlines.now()
        if at > 0:
            pool.deadlines.set(self.deadline, at)
        pool.dials.add(self)
        try:
            self.coroutine = pool._loop.create_connection(self, *self.address)
        except BaseException as exc:
            return self._end(exc)
        return self._step(None)

    # The coroutine's steps, as a task takes them

    cdef int _step(self, object exc) except -1:
        cdef PyObject* got = NULL
        cdef int kind = GEN_RETURN
        try:
            if exc is not None:
                result = self.coroutine.throw(exc)
                kind = 1
            else:
                kind = PyIter_Send(self.coroutine, None, &got)
                result = <object> got
                Py_DECREF(got)
        except StopIteration:
            return self._end(None)
        except BaseException as error:
            return self._end(error)
        if kind == GEN_RETURN:
            return self._end(None)
        return self._wait(result)

    cdef int _wait(self, object future) except -1:
        self.has_waited = True
        if future is None:
            # A bare yield: on with the next round of the loop.
            self.pool._loop.call_soon(self._on_awaited, None)
            return 0
        future._asyncio_future_blocking = False
        self.awaited = future
        future.add_done_callback(self._on_awaited)
        if self.must_cancel and future.cancel():
            self.must_cancel = False
        return 0

    def _on_awaited(self, _):
        """Go on; the future raises where it is awaited if it failed or was cancelled."""
        self.awaited = None
        if self.must_cancel:
            self.must_cancel = False
            self._step(asyncio.CancelledError())
        else:
            self._step(None)

    def cancel(self):
        """Give up, unless the connection is made already; true when there was something to give up."""
        if self.is_settled:
            return False
        self.is_cancelled = True
        if self.awaited is None or not self.awaited.cancel():
            self.must_cancel = True
        return True

    cdef int _on_late(self) except -1:
        if not self.is_settled:
            self.is_late = True
            self.cancel()
        return 0

    # Its ends

    def __call__(self):
        """The protocol, for the loop."""
        return self

    def connection_made(self, transport):
        """Hand the connection to the waiter, or to the pool."""
        cdef ConnectionFacts facts
        if self.is_cancelled or self.is_settled:
            transport.abort()
            return
        self.deadline._unlink()
        try:
            if self.pool.set_options is not None:
                self.pool.set_options(transport)
            facts = ConnectionFacts.__new__(ConnectionFacts)
            facts.local = transport.get_extra_info("sockname")
            facts.peer = transport.get_extra_info("peername")
            facts.connect = self.pool.deadlines.now() - self.began
            self.pool.end_dial(self.waiter, transport, facts, False)
            self.is_settled = True
        except PoolClosed:
            self.is_settled = True
            transport.abort()
        except BaseException as exc:
            transport.abort()
            self.has_waited = False
            self._fail(exc)

    def data_received(self, data):
        """Never: reading starts when the connection is made, for the connection."""

    def eof_received(self):
        """Never, as well."""

    def connection_lost(self, exc):
        """Nothing: what was refused on being made is aborted."""

    cdef int _end(self, object exc) except -1:
        """The coroutine has ended. Where no connection was made, tell why."""
        self.coroutine = None
        self.deadline._unlink()
        self.pool.dials.discard(self)
        if not self.is_settled:
            if exc is None:
                lost = ConnectionResetError("Connection lost")
                exc = asyncio.CancelledError() if self.is_cancelled else lost
            self._fail(exc)
        # Its future may have an exception, whose traceback has frames that hold this dial.
        self.waiter = None
        on_done, self.on_done = self.on_done, None
        if on_done is not None:
            on_done(self)
        if self.ended is not None and not self.ended.done():
            self.ended.set_result(None)
        if exc is not None and not isinstance(exc, (Exception, asyncio.CancelledError)):
            raise exc
        return 0

    cdef int _fail(self, object exc) except -1:
        self.is_settled = True
        if self.is_late and isinstance(exc, asyncio.CancelledError):
            cause = asyncio.TimeoutError()
            cause.__cause__ = exc
            exc = cause
        if isinstance(exc, asyncio.TimeoutError) and getattr(exc, "errno", None) is None:
            cause, exc = exc, ConnectTimeout()
            exc.__cause__ = cause
        elif isinstance(exc, OSError) and self.pool.dial_error is not None:
            exc = self.pool.dial_error(self.waiter.host.key, self.address, exc, self.has_waited)
        self.pool.fail_dial(self.waiter, exc)
        return 0

    # As of a task

    def done(self):
        """Whether all of it is over."""
        return self.coroutine is None

    def add_done_callback(self, callback):
        """Call once with the dial when all of it is over; one callback at most."""
        self.on_done = callback

    def wait_ended(self):
        """Return a future that is done when all of it is over."""
        if self.ended is None:
            self.ended = self.pool._loop.create_future()
            if self.coroutine is None:
                self.ended.set_result(None)
        return self.ended


cdef Dial start(Pool pool, Waiter waiter, tuple address, double at):
    cdef Dial dial = Dial.__new__(Dial)
    dial.pool = pool
    dial.waiter = waiter
    dial.address = address
    dial._start(at)
    return dial


def start_dial(Pool pool not None, Waiter waiter not None, tuple address not None, double at=0.0):
    """Dial for a waiter of `pool.begin_dial`, or of `begin_prewarm`.

    Args:
        pool: its settings `set_options` and `dial_error` are used.
        waiter: gets the connection, or the reason for having none.
        address: an IP address, and a port.
        at: loop time at which the waiter gets ConnectTimeout; 0 for never.

    Returns:
        A Dial, which may have failed at once.
    """
    return start(pool, waiter, address, at)
