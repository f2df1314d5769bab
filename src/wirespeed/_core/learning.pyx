"""Learns after how many seconds a server closes idle connections. Fed and asked by the pool.

Servers close idle connections after a time of their own, mostly unannounced, and a request
that crosses such a close is lost. So the ages at which the server ended idle connections are
watched: when LEARN_AFTER of them agree, that age less a margin is the limit. Ends at the same
moment count once: a server that restarts ends connections of every age. What was learned is
forgotten after LEARNED_FOR seconds, and one more end that agrees confirms it. A connection that
was idle for longer and served a request speaks against it: when a few backends of a busy origin
are restarted one after the other, all that ends was idle for a moment only. It must not close
anything.
"""

cimport cython

from wirespeed._core.limits cimport LEARN_AFTER, LEARNED_FOR, margin_of


cdef KeepAlive parse_keep_alive(bytes field) except *:
    """Read `timeout=N, max=M` (RFC 2068 section 19.7.1.1); what cannot be read says nothing."""
    cdef KeepAlive said
    said.timeout = said.max = -1
    for item in field.split(b","):
        name, _, value = item.partition(b"=")
        name = name.strip().lower()
        value = value.strip().strip(b'"')
        # More digits than these are no limit.
        if not value.isdigit() or len(value) > 9:
            continue
        if name == b"timeout":
            said.timeout = int(value)
        elif name == b"max":
            said.max = int(value) if said.max < 0 else min(said.max, <long long> int(value))
    return said


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
            # No more than are needed: what speaks against it has to count.
            self._agreeing = min(self._agreeing + 1, LEARN_AFTER)
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

    cdef int note_use(self, double age) noexcept:
        """A connection that had been idle for `age` seconds served a request."""
        if self._agreeing > 0 and age > self._candidate:
            self._agreeing -= 1
        return 0

    # For tests, and whoever looks

    def note(self, double age, double now):
        """The server ended a connection that had been idle for `age` seconds."""
        self.note_end(age, now)

    def use(self, double age):
        """A connection that had been idle for `age` seconds served a request."""
        self.note_use(age)

    def limit_at(self, double now):
        """Seconds that an idle connection may be kept, or None."""
        cdef double limit = self.limit(now)
        return None if limit < 0 else limit
