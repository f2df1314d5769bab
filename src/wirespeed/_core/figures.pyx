"""Counters of the pool and of its hosts, and the facts about one connection. Fed by pool and connection.

They are incremental: nothing is ever scanned to make a snapshot. It must not decide anything.
"""

cimport cython

# Upper bounds of the buckets of waits, seconds; observe/stats.py has the same, since the fallback needs them.
WAIT_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
cdef double[15] _bounds
_bounds[:] = list(WAIT_BOUNDS)


cdef tuple _tuple(Spread* of):
    return (of.count, of.total, of.max)


@cython.final
@cython.no_gc
cdef class Figures:
    cdef void waited(self, double seconds) noexcept:
        cdef int i = 0
        while i < BUCKETS - 1 and seconds > _bounds[i]:
            i += 1
        self.counts.wait_buckets[i] += 1
        spread(&self.counts.waits, seconds)

    cdef void closed(self, int reason, long long requests) noexcept:
        self.counts.closed[reason] += 1
        spread(&self.counts.lives, <double> requests)

    def snapshot(self):
        """Copy the counters, then give them names: what another thread reads belongs to one moment.

        Returns:
            A dictionary; spreads are tuples of count, total and maximum.
        """
        cdef Counts now = self.counts
        return {
            "created": now.created,
            "reused": now.reused,
            "requests": now.requests,
            "refused": now.refused,
            "wait_timeouts": now.wait_timeouts,
            "dial_failures": now.dial_failures,
            "stale_retries": now.stale_retries,
            "bytes_in": now.bytes_in,
            "bytes_out": now.bytes_out,
            "closed": [now.closed[i] for i in range(REASONS)],
            "wait_buckets": tuple([now.wait_buckets[i] for i in range(BUCKETS)]),
            "waits": _tuple(&now.waits),
            "dials": _tuple(&now.dials),
            "tls": _tuple(&now.tls),
            "lives": _tuple(&now.lives),
        }


@cython.final
cdef class ConnectionFacts:
    """How a connection was made.

    Args:
        dns: seconds that resolving the name took.
        connect: seconds from there to the TCP connection.
        tls: seconds of the TLS handshake.
        local: the address at this end, or None.
        peer: the address of the peer, or None.
        tls_version: as `ssl.SSLObject.version()`, or None.
        tls_cipher: the cipher's name, or None.
    """

    def __init__(self, *, double dns=0.0, double connect=0.0, double tls=0.0, local=None, peer=None,
                 tls_version=None, tls_cipher=None):
        self.dns = dns
        self.connect = connect
        self.tls = tls
        self.local = local
        self.peer = peer
        self.tls_version = tls_version
        self.tls_cipher = tls_cipher
