"""How long the idle connections of one origin live, learned from how they end."""

# What a field Keep-Alive says; -1 where it says nothing.
cdef struct KeepAlive:
    double timeout                      # seconds
    long long max                       # requests


cdef KeepAlive parse_keep_alive(bytes field) except *


cdef class KeepAliveLearner:
    cdef double _candidate              # seconds: the lowest of the ages that agree
    cdef int _agreeing                  # ends at about that age, one after the other
    cdef double _last_end               # when; ends at the same moment have one cause
    cdef double _learned                # seconds; 0: nothing
    cdef double _learned_at

    cdef double limit(self, double now) noexcept
    cdef int note_end(self, double age, double now) except -1
    cdef int note_use(self, double age) noexcept
