"""Coroutines in C. Subclassed by the request and by the reading of a body.

Tasks and `await` drive them as they drive Python's: `send`, `throw`, `close`. A step ends with a future that
the task is to wait for, with the result, or with another coroutine that goes on in this one's place: what is
rare is written in Python. It must not know what it is a coroutine of.
"""

import collections.abc
import warnings
from types import CoroutineType

cimport cython
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF


cdef extern from *:
    """
    typedef PyObject *(*wirespeed_next)(PyObject *);
    static inline void wirespeed_set_next(PyTypeObject *type, wirespeed_next next) {
        type->tp_iternext = next;
    }
    """
    ctypedef PyObject* (*wirespeed_next)(PyObject*) except? NULL
    void wirespeed_set_next(PyTypeObject* type, wirespeed_next next)

cdef extern from "Python.h":
    PyObject* PyExc_StopIteration
    void PyErr_SetObject(PyObject* type, object value)  # not "except *": the error is to stay set
    int PyIter_Send(object iterator, object argument, PyObject** result) except -1
    void Py_DECREF(PyObject* thing)

# What PyIter_Send returns; an error is -1.
cdef enum:
    GEN_RETURN = 0
    GEN_NEXT = 1


cdef object _exception(object kind, object value):
    """What `throw` raises: an exception, or one made of a class and its value or arguments."""
    if isinstance(kind, BaseException):
        if value is not None:
            raise TypeError("instance exception may not have a separate value")
        return kind
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        raise TypeError(
            f"exceptions must be classes or instances deriving from BaseException, not {type(kind).__name__}"
        )
    if isinstance(value, kind):
        return value
    if isinstance(value, tuple):
        return kind(*value)
    return kind() if value is None else kind(value)


cdef class NativeCoroutine:
    """A coroutine whose steps are those of a subclass."""

    def __cinit__(self):
        self.state = CoroutineState.NEW

    # For subclasses

    cdef object _begin(self):
        """Take the first step."""
        raise NotImplementedError

    cdef object _on_done(self):
        """Go on: the future that was awaited is done."""
        raise NotImplementedError

    cdef object _on_thrown(self, object exc):
        """Clean up: the task was cancelled while it waited, or worse. Raises the exception, or another."""
        raise exc

    cdef object _on_inner_done(self, object result):
        """Go on: the other coroutine has returned."""
        return result

    cdef object _on_inner_failed(self, object exc):
        """Go on, or raise: the other coroutine has raised."""
        raise exc

    cdef str _name(self):
        return type(self).__name__

    cdef object wait(self, object future):
        """Yield a future, as `await future` does."""
        future._asyncio_future_blocking = True
        self.awaited = future
        self.state = CoroutineState.WAITING
        return future

    cdef object wait_on(self, object future):
        """Yield a future again: somebody else awaits this coroutine, or has not waited for the future."""
        if future._asyncio_future_blocking:
            return self._on_thrown(RuntimeError("await wasn't used with future"))
        return self.wait(future)

    cdef object delegate(self, object coroutine):
        """Let a Python coroutine go on in this one's place."""
        self.inner = coroutine
        return self._drive(None, None)

    # Steps

    cdef object _resume(self, object value, object exc):
        """Take a step, with a value or an exception; the state tells whether its result is yielded."""
        cdef CoroutineState state = self.state
        if state == CoroutineState.ENDED:
            raise RuntimeError("cannot reuse already awaited coroutine")
        if state == CoroutineState.RUNNING:
            raise ValueError("coroutine already executing")
        if value is not None and state == CoroutineState.NEW:
            raise TypeError("can't send non-None value to a just-started coroutine")
        self.state = CoroutineState.RUNNING
        try:
            if state == CoroutineState.DELEGATED:
                result = self._drive(value, exc)
            elif state == CoroutineState.NEW:
                if exc is not None:
                    raise exc
                result = self._begin()
            else:
                self.awaited = None
                result = self._on_done() if exc is None else self._on_thrown(exc)
        except BaseException:
            self._end()
            raise
        if self.state == CoroutineState.RUNNING:
            self._end()
        return result

    cdef object _drive(self, object value, object exc):
        """Let the other coroutine take a step."""
        cdef PyObject* got = NULL
        cdef int kind = GEN_NEXT
        inner = self.inner
        try:
            if exc is None:
                kind = PyIter_Send(inner, value, &got)
                result = <object> got
                Py_DECREF(got)
            else:
                result = inner.throw(exc)
        except StopIteration as stop:
            kind, result = GEN_RETURN, stop.value
        except BaseException as error:
            self.inner = None
            return self._on_inner_failed(error)
        if kind == GEN_NEXT:
            self.state = CoroutineState.DELEGATED
            return result
        self.inner = None
        return self._on_inner_done(result)

    cdef int _end(self) except -1:
        self.state = CoroutineState.ENDED
        self.awaited = self.inner = None
        return 0

    # What tasks and `await` call

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        """Take a step: return what is yielded, or raise StopIteration with what is returned."""
        result = self._resume(value, None)
        if self.state == CoroutineState.ENDED:
            raise StopIteration(result)
        return result

    def throw(self, kind, value=None, traceback=None):
        """Raise an exception where the coroutine waits."""
        exc = _exception(kind, value)
        if traceback is not None:
            exc = exc.with_traceback(traceback)
        result = self._resume(None, exc)
        if self.state == CoroutineState.ENDED:
            raise StopIteration(result)
        return result

    def close(self):
        """End the coroutine where it waits."""
        if self.state == CoroutineState.NEW:
            self._end()
        elif self.state != CoroutineState.ENDED:
            try:
                self._resume(None, GeneratorExit())
            except (GeneratorExit, StopIteration):
                return
            if self.state != CoroutineState.ENDED:
                raise RuntimeError("coroutine ignored GeneratorExit")

    def __del__(self):
        if self.state == CoroutineState.ENDED:
            return
        if self.state == CoroutineState.NEW:
            warnings.warn(f"coroutine '{self._name()}' was never awaited", RuntimeWarning, 2, source=self)
        self.close()

    # What debuggers and asyncio's repr() look at

    @property
    def __name__(self):
        return self._name().rpartition(".")[2]

    @property
    def __qualname__(self):
        return self._name()

    @property
    def cr_running(self):
        """Whether it is taking a step."""
        return self.state == CoroutineState.RUNNING

    @property
    def cr_await(self):
        """What it waits for, or None."""
        return self.awaited if self.inner is None else self.inner

    @property
    def cr_suspended(self):
        """Whether it waits."""
        return self.state in (CoroutineState.WAITING, CoroutineState.DELEGATED)

    def __repr__(self):
        return f"<coroutine {self._name()} at {id(self):#x}>"


async def _await(awaitable):
    return await awaitable


cdef object as_coroutine(object awaitable):
    """What code of the user's returned, as something that can be driven."""
    if type(awaitable) is CoroutineType or isinstance(awaitable, NativeCoroutine):
        return awaitable
    return _await(awaitable)


cdef PyObject* _next(PyObject* self) except? NULL:
    """tp_iternext: as `send(None)`, but without the cost of raising StopIteration."""
    cdef NativeCoroutine coroutine = <NativeCoroutine> self
    result = coroutine._resume(None, None)
    if coroutine.state != CoroutineState.ENDED:
        Py_INCREF(result)
        return <PyObject*> result
    if result is not None:
        if isinstance(result, (tuple, BaseException)):
            # PyErr_SetObject would take them for arguments, or for the exception.
            result = StopIteration(result)
        PyErr_SetObject(PyExc_StopIteration, result)
    return NULL


wirespeed_set_next(<PyTypeObject*> NativeCoroutine, _next)


@cython.final
cdef class Nothing:
    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration

    def send(self, value):
        """Return None."""
        raise StopIteration

    def throw(self, kind, value=None, traceback=None):
        """Raise the exception."""
        raise kind if value is None else value

    def close(self):
        """Nothing to end."""


cdef PyObject* _stop(PyObject* self) except? NULL:
    """tp_iternext without a result."""
    return NULL


wirespeed_set_next(<PyTypeObject*> Nothing, _stop)

NOTHING = Nothing()
collections.abc.Coroutine.register(NativeCoroutine)
collections.abc.Coroutine.register(Nothing)
