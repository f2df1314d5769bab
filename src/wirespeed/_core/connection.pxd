"""One connection: a BufferedProtocol, the parser that reads it, and the exchange it serves.

States and legal moves (the table is in connection.pyx):

    RESERVED  a caller owns it, nothing is sent      -> ACTIVE, IDLE, LENT, CLOSED
    ACTIVE    a request is sent, its response awaited -> IDLE, CLOSED
    IDLE      in the pool                             -> RESERVED, CLOSED
    LENT      the full lane has the transport         -> IDLE, CLOSED
    CLOSED    never used again                        -> (none)
"""

from wirespeed._core.deadlines cimport Deadline, Deadlines
from wirespeed._core.exchange cimport CloseReason, Exchange, ExchangeSettings, ReadGate
from wirespeed._core.parser cimport ResponseParser


cpdef enum ConnectionState:
    RESERVED = 0
    ACTIVE
    IDLE
    LENT
    CLOSED


cdef class ConnectionOwner:
    """Who gets a connection back: the pool."""
    cdef int _on_idle(self, Connection conn) except -1
    cdef int _on_closed(self, Connection conn, ConnectionState before) except -1
    cdef int _on_gone(self, Connection conn) except -1


cdef class IdleDeadline(Deadline):
    """When an idle connection has been idle for too long. Set lazily: it survives a reuse."""
    cdef void* _conn                        # borrowed; the connection owns this


cdef class Connection(ReadGate):
    # Owner's side
    cdef ConnectionOwner owner
    cdef readonly object host               # the pool's Host, opaque here
    cdef readonly ConnectionState state
    cdef readonly CloseReason close_reason
    cdef Deadlines deadlines
    cdef IdleDeadline idle_deadline
    cdef double keepalive_timeout           # seconds; 0: no limit
    cdef readonly double idle_since         # of the monotonic clock
    cdef readonly long long requests        # sent on this connection
    cdef bint force_close

    # Transport
    cdef readonly object transport          # None once it is lost
    cdef public object anchor               # what has to live as long as the transport, or None
    cdef object loop
    cdef object _write                      # transport.write, bound once
    cdef readonly bint is_tls
    cdef bint is_reading_paused
    cdef bint is_lost                       # what is fed comes from _ssl_object, after the end
    cdef object _ssl_object                 # holds what TLS did not hand over yet; None without TLS
    cdef list _drain_waiters                # futures of those who wait for room to write
    cdef readonly bint _paused              # the name aiohttp's StreamWriter reads

    # Reading
    cdef object _view                       # of the buffer that the pool's connections share
    cdef char* _bytes
    cdef ResponseParser parser
    cdef readonly Exchange exchange         # None unless ACTIVE

    # Moves
    cdef int _set_state(self, ConnectionState state) except -1
    cdef int _reserve(self) except -1
    cdef int _give_back(self) except -1
    cdef CloseReason why_unusable(self) except *

    # Response in
    cdef int _take_rest(self, Exchange exchange) except -1
    cdef int _advance(self, Exchange exchange) except -1
    cdef int _finish(self, Exchange exchange) except -1
    cdef CloseReason _why_close(self, Exchange exchange) except *

    # Flow control
    cdef int _wake_drainers(self, bint is_lost) except -1

    # End
    cdef int _close(self, CloseReason reason) except -1
    cdef int _on_idle_deadline(self, double now) except -1
