"""What is counted about connections, as plain numbers that a snapshot copies in one go."""

cdef enum:
    REASONS = 21                        # members of exchange.CloseReason
    BUCKETS = 16                        # of the histogram of waits: WAIT_BOUNDS, and what is above


cdef struct Spread:
    long long count
    double total
    double max


cdef struct Counts:
    long long created
    long long reused                    # requests that found a connection in the pool
    long long requests
    long long refused                   # by max_waiters
    long long wait_timeouts
    long long dial_failures
    long long stale_retries
    long long bytes_in
    long long bytes_out
    long long closed[REASONS]
    long long wait_buckets[BUCKETS]
    Spread waits                        # seconds in the queue, of those who got a slot
    Spread dials                        # seconds
    Spread tls                          # seconds
    Spread lives                        # requests of the connections that were closed


cdef inline void spread(Spread* of, double value) noexcept:
    of.count += 1
    of.total += value
    if value > of.max:
        of.max = value


cdef class Figures:
    """The counters of a host, or of the whole pool."""
    cdef Counts counts
    cdef void waited(self, double seconds) noexcept
    cdef void closed(self, int reason, long long requests) noexcept


cdef class ConnectionFacts:
    """How a connection was made; outlives it."""
    cdef readonly double created_at     # of the clock of ages; set by the pool
    cdef readonly double dns            # seconds
    cdef readonly double connect
    cdef readonly double tls
    cdef readonly object local          # addresses, or None
    cdef readonly object peer
    cdef readonly object tls_version    # str, or None
    cdef readonly object tls_cipher
