"""One connection: a BufferedProtocol, the parser that reads it, and the exchange it serves.

States and legal moves (the table is in connection.pyx):

    RESERVED  a caller owns it, nothing is sent      -> ACTIVE, IDLE, LENT, CLOSED
    ACTIVE    a request is sent, its response awaited -> IDLE, CLOSED
    IDLE      in the pool                             -> RESERVED, CLOSED
    LENT      the full lane has the transport         -> IDLE, CLOSED
    CLOSED    never used again                        -> (none)
"""

from wirespeed._core.deadlines cimport Deadline, Deadlines
from wirespeed._core.exchange cimport CloseReason, Exchange, ExchangeSettings
from wirespeed._core.figures cimport ConnectionFacts, Figures
from wirespeed._core.flow cimport Flow
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


cdef class Connection(Flow):
    # Owner's side
    cdef ConnectionOwner owner
    cdef readonly object host               # the pool's Host, opaque here
    cdef readonly ConnectionState state
    cdef readonly CloseReason close_reason
    cdef Deadlines deadlines
    cdef IdleDeadline idle_deadline
    cdef bint force_close

    # Who has it. Times are of the clock of ages (Deadlines.now)
    cdef readonly double acquired_at
    cdef public object holder               # weak reference to the task, or of Pool.who; None: idle
    cdef public double waited             # seconds that the present request waited for it
    cdef readonly bint is_dialled           # it was made for the present request

    # Lifetime
    cdef double keepalive_timeout           # seconds; 0: no limit
    cdef double server_timeout              # seconds, of the field Keep-Alive; -1: none
    cdef double expires_at                  # 0: never
    cdef long long max_requests             # 0: any number
    cdef CloseReason max_requests_reason    # who set it: the user or the server
    cdef readonly double idle_since
    cdef double idle_until                  # 0: for ever
    cdef CloseReason idle_reason            # why then
    cdef double deadline_for                # the idle_until that idle_deadline was set for
    cdef double read_at                     # the last read
    cdef double stale_age                   # seconds idle before a request that it lost; -1: none

    # Figures
    cdef readonly ConnectionFacts facts
    cdef Figures _figures                   # of the host
    cdef Figures _totals                    # of the pool
    cdef readonly long long requests        # sent on this connection

    # Transport
    cdef public object anchor               # what has to live as long as the transport, or None
    cdef object _create_future              # loop.create_future, bound once
    cdef object _write                      # transport.write, bound once
    cdef readonly bint is_tls
    cdef bint is_lost                       # what is fed comes from _ssl_object, after the end
    cdef object _ssl_object                 # holds what TLS did not hand over yet; None without TLS

    # Reading
    cdef object _view                       # of the buffer that the pool's connections share
    cdef object _first_view                 # as much of it as is read while the head is awaited
    cdef char* _bytes
    cdef Py_ssize_t _left                   # bytes of a body that come without the parser; 0: it has the say
    cdef bytes _place                       # the body's own, while the loop has it to read into; or None
    cdef Py_ssize_t _place_at               # from which byte on
    cdef ResponseParser parser
    cdef readonly Exchange exchange         # None unless ACTIVE

    # Moves
    cdef int _bind(self, object transport, bint is_read) except -1
    cdef int _set_state(self, ConnectionState state) except -1
    cdef int _reserve(self, double now, double waited, object holder) except -1
    cdef int _give_back(self, double now, double learned) except -1
    cdef int _limit_idle(self, double now, double learned) except -1
    cdef CloseReason why_spent(self, double now) except *
    cdef CloseReason why_unusable(self, double now) except *
    cdef int _note_keep_alive(self, bytes field) except -1

    # Request out
    cdef Exchange _send(self, bytes data, ExchangeSettings settings, bint skip_body, double total_at,
                        double read_timeout, bint has_upload, bint is_unclean, object waiter)
    cdef int _count_out(self, Py_ssize_t size) except -1

    # Response in
    cdef int _count_in(self, Exchange exchange, const char* data, Py_ssize_t size) except -1
    cdef int _count_read(self, Exchange exchange, Py_ssize_t size) except -1
    cdef int _take_rest(self, Exchange exchange) except -1
    cdef int _advance(self, Exchange exchange) except -1
    cdef int _finish(self, Exchange exchange) except -1
    cdef CloseReason _why_close(self, Exchange exchange) except *

    # End
    cdef int _close(self, CloseReason reason) except -1
    cdef int _on_idle_deadline(self, double now) except -1
