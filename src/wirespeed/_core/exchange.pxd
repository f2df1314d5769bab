"""One request and its response, from the bytes sent to the last byte of the body.

An exchange stands between a connection, which feeds it, and the facade's response, which
reads it. It ends complete, failed or abandoned; after that it holds no connection.
"""

from wirespeed._core.deadlines cimport Deadline, Deadlines
from wirespeed._core.figures cimport ConnectionFacts
from wirespeed._core.message cimport ResponseHead
from wirespeed._core.parser cimport ResponseParser


cpdef enum CloseReason:
    """Why a connection was closed instead of kept."""
    KEPT = 0                # not closed
    FORCE_CLOSE             # the pool keeps no connections
    SERVER_CLOSES           # Connection: close, HTTP/1.0, or a body that ends with the connection
    SURPLUS_BYTES           # bytes after a complete response
    IDLE_BYTES              # bytes while nothing was asked
    IDLE_EOF                # the server closed it while idle
    IDLE_TIMEOUT            # keepalive_timeout passed
    MALFORMED               # the response broke the protocol
    LOST                    # the server closed it, or the network did, during an exchange
    ABANDONED               # the caller cancelled, or let go of an unread body
    TIMED_OUT               # a deadline of the exchange passed
    UPLOAD_UNFINISHED       # the response was complete before the request was
    UPGRADED                # 101
    LENT_UNCLEAN            # the full lane gave it back in doubt
    POOL_CLOSED
    IDLE_RESET              # reset while idle
    SERVER_TIMEOUT          # Keep-Alive: timeout or max
    LEARNED_TIMEOUT         # idle for as long as the server is known to allow
    MAX_AGE                 # max_connection_age
    MAX_REQUESTS            # max_requests_per_connection
    EVICTED                 # idle while another needed its place


cpdef enum Failure:
    """What ended an exchange early; the facade turns it into aiohttp's exception."""
    BAD_RESPONSE            # the parser refused the bytes
    CONNECTION_LOST         # closed or broken before the message was complete
    TOTAL_TIMEOUT
    READ_TIMEOUT
    BAD_CONTENT             # the body could not be decoded
    BAD_UPLOAD              # the request body could not be sent
    LET_GO                  # the caller released or closed it
    OWNER_CLOSED            # the pool was closed
    BODY_TOO_LARGE          # more than max_body


cdef class ReadGate:
    """What an exchange may ask of the connection that feeds it."""
    cdef int _pause(self) except -1
    cdef int _resume(self) except -1
    cdef int _drop(self, CloseReason reason) except -1
    cdef object _get_transport(self)


cdef class ExchangeSettings:
    """What the exchanges of a session have in common; made once, shared."""
    cdef readonly Py_ssize_t max_line_size
    cdef readonly Py_ssize_t max_field_size
    cdef readonly Py_ssize_t max_headers
    cdef readonly Py_ssize_t high_water     # bytes of body kept for a reader that has not come yet
    cdef readonly Py_ssize_t max_body       # bytes of a body, as on the wire; -1: any number
    cdef readonly object make_sink          # decoder of a compressed body, or None: leave it compressed
    cdef readonly object translate          # (exchange, Failure, exception, raw head) -> exception


cdef class Exchange(Deadline):
    # Facade's side
    cdef readonly ResponseHead head         # None until it came
    cdef readonly object waiter             # the future that the caller awaits: head, then body
    cdef readonly object error              # why the exchange failed
    cdef readonly object failure            # the Failure that ended it early, or None
    cdef readonly bint is_complete          # the whole response was received
    cdef readonly bint skip_body            # the request was HEAD
    cdef readonly Py_ssize_t body_size      # bytes of body received, as on the wire

    # Of the response, opaque here
    cdef object resp_body                   # bytes, once somebody read them
    cdef object resp_connection             # a view of the connection, once somebody asked for it
    cdef bint resp_closed
    cdef bint resp_released
    cdef bint resp_in_context
    cdef readonly object prepared
    cdef object resolve_charset
    cdef public bint is_plain               # no upload goes on, nobody traces the body, or streams it

    # Connection's side
    cdef ReadGate gate                      # None once the exchange is over
    cdef readonly ConnectionFacts facts     # of the connection, which may be gone
    cdef public object on_end               # called with the exchange once it is over, or None

    # When, on the clock of ages (Deadlines.now); 0: not yet
    cdef readonly double queued             # seconds that the request waited for its connection
    cdef readonly double idle_for           # seconds that the connection had been idle
    cdef readonly double sent_at            # the request, or its head
    cdef readonly double upload_at          # its last byte
    cdef readonly double first_at           # the first byte of the response
    cdef readonly double end_at             # its last
    cdef readonly long long number          # of the request on its connection; the first is 1
    cdef readonly bint is_dialled           # the connection was made for this request
    cdef readonly ExchangeSettings settings
    cdef object loop
    cdef bint is_unclean                    # the connection must not be reused

    # Body
    cdef list parts                         # received and not handed on; None ends a chunk
    cdef bytes whole                        # what a body of known length is received into, and one byte
    cdef readonly object sink                        # StreamReader or decoder, once there is one
    cdef list held                          # parts that wait while the sink is full
    cdef bint has_more                      # the decoder has more output for the same input
    cdef bint is_paused                     # the transport does not read
    cdef bint wants_all                     # somebody awaits the whole body: no bound
    cdef bint eof_pending                   # complete, but the sink has not had everything

    # Deadlines, seconds of loop time; 0: none
    cdef Deadlines deadlines
    cdef double total_at
    cdef double read_timeout
    cdef double last_read
    cdef readonly object upload             # the task that sends the request body, or None
    cdef object before_cut                  # called before an unfinished upload is cut short, or None
    cdef object may_continue                # the future of an upload that waits for a 1xx, or None

    # Response in
    cdef int _on_interim(self) except -1
    cdef int _on_head(self, ResponseHead head) except -1
    cdef int _on_body(self, list parts, Py_ssize_t size) except -1
    cdef int _on_complete(self) except -1

    # A body of known length, without the parser
    cdef bint _can_count(self, ResponseParser parser) except -1
    cdef int _begin_whole(self) except -1
    cdef int _count_in(self, const char* data, Py_ssize_t size) except -1
    cdef int _seal(self) except -1
    cdef int _fail(self, Failure failure, object exc, list raw) except -1
    cdef int _wake(self) except -1
    cdef int _tell_end(self) except -1
    cdef int _cut(self) except -1

    # Body out
    cdef int _push(self, list parts) except -1
    cdef int _push_held(self) except -1
    cdef int _push_eof(self) except -1
    cpdef bytes take_body(self)
    cpdef int abandon(self) except -1
    cpdef int forget(self) except -1
    cdef int _fail_sink(self, object exc) except -1
    cdef object _translate(self, Failure failure, object exc, list raw)

    # Deadlines
    cdef int _start(self, Deadlines deadlines, double total_at, double read_timeout,
                    bint has_upload) except -1
    cdef int _arm(self) except -1
    cdef double _read_at(self) noexcept
    cdef bint _is_timed(self) noexcept
