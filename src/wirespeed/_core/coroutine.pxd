"""A coroutine in C, for awaits that would else cost a Python frame each."""


cdef enum CoroutineState:
    NEW = 0
    RUNNING
    WAITING                             # for `awaited`
    DELEGATED                           # to `inner`
    ENDED


cdef class NativeCoroutine:
    cdef CoroutineState state
    cdef object awaited                 # the future that it waits for, or None
    cdef object inner                   # the coroutine that goes on in its place, or None
    cdef object __weakref__

    # For subclasses. Each returns what the coroutine yields (`wait`, `delegate`) or what it returns.
    cdef object _begin(self)
    cdef object _on_done(self)
    cdef object _on_thrown(self, object exc)
    cdef object _on_inner_done(self, object result)
    cdef object _on_inner_failed(self, object exc)
    cdef str _name(self)

    # For subclasses to call
    cdef object wait(self, object future)
    cdef object wait_on(self, object future)
    cdef object delegate(self, object coroutine)

    cdef object _resume(self, object value, object exc)
    cdef object _drive(self, object value, object exc)
    cdef int _end(self) except -1


cdef object as_coroutine(object awaitable)


cdef class Nothing:
    """Awaitable that is done, with None."""
