"""Learns after how many seconds a server closes idle connections. Fed and asked by the pool.

Servers close idle connections after a time of their own, mostly unannounced, and a request
that crosses such a close is lost. So the ages at which the server ended idle connections are
watched: when LEARN_AFTER of them agree, that age less a margin is the limit. Ends at the same
moment count once: a server that restarts ends connections of every age. What was learned is
forgotten after LEARNED_FOR seconds, and one more end that agrees confirms it. It must not
close anything.
"""

cimport cython

from wirespeed._core.limits cimport LEARN_AFTER, LEARNED_FOR, margin_of


@cython.final
@cython.no_gc
cdef class KeepAliveLearner:
    cdef double limit(self, double now) noexcept:
        """Seconds that an idle connection may be kept, or -1 when nothing is known."""
        if self._agreeing < LEARN_AFTER:
            return -1
        if now - self._learned_at > LEARNED_FOR:
            # To be confirmed by one more end.
            self._agreeing = LEARN_AFTER - 1
            return -1
        return self._learned

    cdef int note_end(self, double age, double now) except -1:
        """The server ended a connection that had been idle for `age` seconds."""
        cdef double tolerance = max(0.25, 0.1 * self._candidate)
        cdef bint is_same_moment = self._agreeing > 0 and now - self._last_end < 1
        if self._agreeing > 0 and self._candidate - tolerance <= age <= self._candidate + tolerance:
            self._candidate = min(self._candidate, age)
            if is_same_moment:
                return 0
            self._agreeing += 1
        elif is_same_moment:
            return 0
        else:
            self._candidate = age
            self._agreeing = 1
        self._last_end = now
        if self._agreeing >= LEARN_AFTER:
            self._learned = self._candidate - margin_of(self._candidate)
            self._learned_at = now
        return 0

    # For tests, and whoever looks

    def note(self, double age, double now):
        """The server ended a connection that had been idle for `age` seconds."""
        self.note_end(age, now)

    def limit_at(self, double now):
        """Seconds that an idle connection may be kept, or None."""
        cdef double limit = self.limit(now)
        return None if limit < 0 else limit
