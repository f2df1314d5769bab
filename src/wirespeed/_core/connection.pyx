"""One HTTP/1.1 connection. Called by the event loop, the pool and the facade's upload.

It moves bytes between a transport and an exchange, and decides after each response whether
it may serve another: never when its state is in doubt. It must not queue requests, dial, or
know what an exchange is for. Every move of its state goes through `_set_state`.
"""

import asyncio
import sys

try:
    from ssl import SSLWantReadError, SSLZeroReturnError
except ImportError:
    # A CPython without OpenSSL has no TLS transport either.
    SSLWantReadError = SSLZeroReturnError = None

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.buffer cimport PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory

from wirespeed._core.exchange cimport Failure
from wirespeed._core.learning cimport KeepAlive, parse_keep_alive
from wirespeed._core.limits cimport FIRST_READ, READ_BUFFER_SIZE, SMALL_READ, margin_of

# One buffer may serve all connections where a read is a readiness event: the loop asks for
# the buffer and fills it in one step. A proactor fills it later, so each needs its own.
cdef bint SHARES_BUFFER = sys.platform != "win32"

# The legal moves: a row for each state, a bit for each state it may move to.
cdef int[5] _MOVES
_MOVES[<int> ConnectionState.RESERVED] = (
    1 << ConnectionState.ACTIVE | 1 << ConnectionState.IDLE
    | 1 << ConnectionState.LENT | 1 << ConnectionState.CLOSED
)
_MOVES[<int> ConnectionState.ACTIVE] = 1 << ConnectionState.IDLE | 1 << ConnectionState.CLOSED
_MOVES[<int> ConnectionState.IDLE] = 1 << ConnectionState.RESERVED | 1 << ConnectionState.CLOSED
_MOVES[<int> ConnectionState.LENT] = 1 << ConnectionState.IDLE | 1 << ConnectionState.CLOSED
_MOVES[<int> ConnectionState.CLOSED] = 0


def new_read_buffer():
    """Make the buffer that the connections of one pool read into."""
    return bytearray(READ_BUFFER_SIZE)


cdef class ConnectionOwner:
    cdef int _on_idle(self, Connection conn) except -1:
        raise NotImplementedError

    cdef int _on_closed(self, Connection conn, ConnectionState before) except -1:
        raise NotImplementedError

    cdef int _on_gone(self, Connection conn) except -1:
        raise NotImplementedError


@cython.final
@cython.no_gc
cdef class IdleDeadline(Deadline):
    cdef int _on_deadline(self, double now) except -1:
        return (<Connection> self._conn)._on_idle_deadline(now)


cdef class Connection(Flow):
    """A transport, its parser and its state. Use `PooledConnection`, which loops accept as a protocol.

    Args:
        owner: the pool.
        host: the pool's Host it belongs to.
        transport: a connected transport; its protocol becomes this object.
        loop: the event loop.
        deadlines: the pool's deadlines.
        buffer: from `new_read_buffer`, shared where the platform allows.
        keepalive_timeout: seconds it may stay idle; 0 for no limit.
        force_close: never keep it.
        lenient: see ResponseParser.
        figures: the host's counters.
        totals: the pool's counters.
        facts: how it was made.
        expires_at: when it is too old to be kept, on the clock of ages; 0 for never.
        max_requests: requests after which it is not kept; 0 for any number.
        is_read: the transport reads already, for another protocol.
    """

    def __cinit__(self, *args, **kwargs):
        self.idle_deadline = IdleDeadline.__new__(IdleDeadline)
        self.idle_deadline._conn = <void*> self

    def __init__(self, ConnectionOwner owner not None, host, transport, *, loop, Deadlines deadlines not None,
                 buffer, double keepalive_timeout, bint force_close, bint lenient, Figures figures=None,
                 Figures totals=None, ConnectionFacts facts=None, double expires_at=0.0,
                 long long max_requests=0, bint is_read=True):
        self.owner = owner
        self.host = host
        self.loop = loop
        self._create_future = loop.create_future
        self.deadlines = deadlines
        self.keepalive_timeout = keepalive_timeout
        self.force_close = force_close
        self.state = ConnectionState.RESERVED
        self._figures = figures or Figures.__new__(Figures)
        self._totals = totals or Figures.__new__(Figures)
        self.facts = facts or ConnectionFacts()
        self.server_timeout = self.stale_age = -1
        self.expires_at = expires_at
        self.max_requests = max_requests
        self.max_requests_reason = CloseReason.MAX_REQUESTS
        self.parser = ResponseParser(lenient)
        buffer = buffer if SHARES_BUFFER else new_read_buffer()
        self._bytes = PyByteArray_AS_STRING(buffer)
        # A view: asyncio's TLS slices the buffer and reads into the slice.
        self._view = self._first_view = memoryview(buffer)
        self.is_tls = transport.get_extra_info("sslcontext") is not None
        if SHARES_BUFFER and not self.is_tls:
            # What comes with the head is copied once more than the rest of a long body.
            self._first_view = self._view[:FIRST_READ]
        self._ssl_object = transport.get_extra_info("ssl_object") if self.is_tls else None
        if not hasattr(self._ssl_object, "read"):
            # Not the ssl module's: somebody else's TLS, or a stand-in for it.
            self._ssl_object = None
        self._bind(transport, is_read)

    def __repr__(self):
        return f"<Connection {ConnectionState(self.state).name} requests={self.requests} host={self.host!r}>"

    cdef int _bind(self, object transport, bint is_read) except -1:
        self.transport = transport
        self._write = transport.write
        transport.set_protocol(self)
        if is_read and not self.is_tls:
            # uvloop picks the read callback when reading starts, not when the protocol is set.
            transport.pause_reading()
            transport.resume_reading()
        return 0

    # Moves

    cdef int _set_state(self, ConnectionState state) except -1:
        if not _MOVES[<int> self.state] & (1 << <int> state):
            raise RuntimeError(
                f"A connection cannot move from {ConnectionState(self.state).name} "
                f"to {ConnectionState(state).name}"
            )
        self.state = state
        self._left = 0
        return 0

    cdef CloseReason why_unusable(self, double now) except *:
        """Why an idle connection may not be used any more, or KEPT.

        Its deadline says so too, but not while the loop was held up by something else.
        """
        if self.transport.is_closing():
            return CloseReason.IDLE_EOF
        if self.idle_until > 0 and now >= self.idle_until:
            return self.idle_reason
        return CloseReason.KEPT

    cdef CloseReason why_spent(self, double now) except *:
        """Why a connection that has just become idle must not be kept, or KEPT."""
        if self.force_close:
            return CloseReason.FORCE_CLOSE
        if self.max_requests > 0 and self.requests >= self.max_requests:
            return self.max_requests_reason
        if self.idle_until > 0 and now >= self.idle_until:
            return self.idle_reason
        return CloseReason.KEPT

    cdef int _reserve(self, double now, double waited, object holder) except -1:
        self._set_state(ConnectionState.RESERVED)
        self.acquired_at = now
        self.waited = waited
        self.holder = holder
        self.is_dialled = False
        return 0

    cdef int _give_back(self, double now, double learned) except -1:
        """Become idle.

        Args:
            now: on the clock of ages.
            learned: seconds for which the server is known to keep idle connections; -1 for unknown.
        """
        cdef ConnectionState before = self.state
        self._set_state(ConnectionState.IDLE)
        if before != ConnectionState.RESERVED or self.idle_since == 0:
            # Reserved and not used: the server has been counting all the while.
            self.idle_since = now
        self.holder = None
        return self._limit_idle(now, learned)

    cdef int _limit_idle(self, double now, double learned) except -1:
        """Find until when it may be idle. The deadline is set when none is pending early enough."""
        cdef double until
        cdef double limit = self.keepalive_timeout or -1
        self.idle_reason = CloseReason.IDLE_TIMEOUT
        if self.server_timeout >= 0 and (limit < 0 or self.server_timeout < limit):
            limit = self.server_timeout
            self.idle_reason = CloseReason.SERVER_TIMEOUT
        if learned >= 0 and (limit < 0 or learned < limit):
            limit = learned
            self.idle_reason = CloseReason.LEARNED_TIMEOUT
        until = self.idle_since + limit if limit >= 0 else 0
        if self.expires_at > 0 and (limit < 0 or self.expires_at < until):
            until = self.expires_at
            self.idle_reason = CloseReason.MAX_AGE
        self.idle_until = until
        if until > 0 and (self.idle_deadline._bucket is None or until < self.deadline_for):
            self.deadline_for = until
            self.deadlines.set(self.idle_deadline, self.deadlines.time() + until - now)
        return 0

    cdef int _on_idle_deadline(self, double now) except -1:
        cdef double left
        if self.state == ConnectionState.IDLE and self.idle_until > 0:
            left = self.idle_until - self.deadlines.now()
            # The two clocks need not agree to the millisecond.
            if left <= 0.001:
                return self._close(self.idle_reason)
            self.deadline_for = self.idle_until
            self.deadlines.set(self.idle_deadline, now + left)
        return 0

    def note_keep_alive(self, bytes field not None):
        """Take a response's Keep-Alive field into account; for responses that others read."""
        cdef double now
        self._note_keep_alive(field)
        if self.state == ConnectionState.IDLE:
            # Given back before anybody looked at the field.
            now = self.deadlines.now()
            self._limit_idle(now, -1)
            reason = self.why_spent(now)
            if reason != CloseReason.KEPT:
                self._close(reason)

    cdef int _note_keep_alive(self, bytes field) except -1:
        """Note what the server says about the lifetime of the connection.

        Servers count `max` in two ways: what is left (Apache), or what the connection may have
        in all (Node). The first one seen is good for both; a later, lower one for the first.
        """
        cdef KeepAlive said = parse_keep_alive(field)
        cdef long long most
        if said.timeout >= 0:
            self.server_timeout = said.timeout - margin_of(said.timeout)
        if said.max >= 0:
            most = self.requests + said.max
            if self.requests == 1 and most > 1:
                most -= 1
            if self.max_requests == 0 or most < self.max_requests:
                self.max_requests = most
                self.max_requests_reason = CloseReason.SERVER_TIMEOUT
        return 0

    # Request out

    def send(self, bytes data not None, ExchangeSettings settings not None, *, bint skip_body=False,
             double total_at=0.0, double read_timeout=0.0, bint has_upload=False, bint is_unclean=False):
        """Send a request on a reserved connection and return its exchange, whose `waiter` is the head.

        Args:
            data: the head, and as much of the body as is at hand.
            settings: what the exchanges of the session have in common.
            skip_body: the response has no body whatever it says: the method is HEAD.
            total_at: loop time at which the exchange fails; 0 for never.
            read_timeout: seconds without a byte before it fails; 0 for no limit.
            has_upload: more of the body follows through `exchange.set_upload`.
            is_unclean: the server cannot find the end of this request; the connection is not reused.

        Raises:
            ConnectionResetError: the connection was lost after it was reserved; nothing was sent.
            RuntimeError: the connection is not reserved.
        """
        return self._send(data, settings, skip_body, total_at, read_timeout, has_upload, is_unclean, None)

    cdef Exchange _send(self, bytes data, ExchangeSettings settings, bint skip_body, double total_at,
                        double read_timeout, bint has_upload, bint is_unclean, object waiter):
        cdef Exchange exchange = Exchange.__new__(Exchange)
        if self.state == ConnectionState.CLOSED:
            raise ConnectionResetError("Cannot write to closing transport")
        self._set_state(ConnectionState.ACTIVE)
        exchange.gate = self
        exchange.is_unclean = is_unclean
        exchange.settings = settings
        exchange.loop = self.loop
        exchange.skip_body = skip_body
        exchange.waiter = self._create_future() if waiter is None else waiter
        self.exchange = exchange
        self.requests += 1
        self._figures.counts.requests += 1
        self._totals.counts.requests += 1
        self._count_out(len(data))
        exchange.facts = self.facts
        exchange.number = self.requests
        exchange.is_dialled = self.is_dialled
        exchange.queued = self.waited
        exchange.sent_at = self.deadlines.now()
        if not has_upload:
            exchange.upload_at = exchange.sent_at
        if not self.is_dialled:
            exchange.idle_for = exchange.sent_at - self.idle_since
        self.parser.begin(skip_body, settings.max_line_size, settings.max_field_size, settings.max_headers)
        exchange._start(self.deadlines, total_at, read_timeout, has_upload)
        self._write(data)
        return exchange

    cdef int _count_out(self, Py_ssize_t size) except -1:
        self._figures.counts.bytes_out += size
        self._totals.counts.bytes_out += size
        return 0

    def count_out(self, Py_ssize_t size):
        """Count bytes of a request that somebody else wrote to the transport."""
        self._count_out(size)

    # Response in: the loop's side (asyncio.BufferedProtocol)

    def get_buffer(self, sizehint):
        cdef Exchange exchange = self.exchange
        self._place = None
        if exchange is None or exchange.head is None or not SHARES_BUFFER:
            return self._first_view
        if self._left == 0 and exchange._can_count(self.parser):
            exchange._begin_whole()
            self._left = <Py_ssize_t> exchange.head.content_length - exchange.body_size
        if self._left == 0 or exchange.whole is None:
            return self._view
        # A memoryview of memory keeps nothing alive: before the loop reads, the response may be collected
        # as garbage, or begin to stream.
        self._place, self._place_at = exchange.whole, exchange.body_size
        return PyMemoryView_FromMemory(
            PyBytes_AS_STRING(self._place) + self._place_at, self._left + 1, PyBUF_WRITE
        )

    cdef int _count_in(self, Exchange exchange, const char* data, Py_ssize_t size) except -1:
        """Take bytes of a body without the parser, which is of no use for it after that."""
        cdef Py_ssize_t count = min(size, self._left)
        exchange._count_in(data, count)
        self._left -= count
        if self._left == 0:
            exchange._seal()
            self.parser.end_elsewhere(size > count)
        return 0

    cdef int _count_read(self, Exchange exchange, Py_ssize_t size) except -1:
        """Take bytes of a body from where the loop has put them."""
        if self._place is None:
            return self._count_in(exchange, self._bytes, size)
        if exchange.whole is self._place:
            self._place = None  # the exchange is to have the only reference
            return self._count_in(exchange, NULL, size)
        self._count_in(exchange, PyBytes_AS_STRING(self._place) + self._place_at, size)
        self._place = None
        return 0

    def buffer_updated(self, Py_ssize_t size):
        cdef Exchange exchange = self.exchange
        self._figures.counts.bytes_in += size
        self._totals.counts.bytes_in += size
        if exchange is None:
            # Closed already: a loop may hand over what it had read before.
            self._drop(CloseReason.IDLE_BYTES)
            return
        self.read_at = self.deadlines.now()
        if exchange.first_at == 0:
            exchange.first_at = self.read_at
        if self._left > 0:
            self._count_read(exchange, size)
        elif size <= SMALL_READ:
            self.parser.feed(PyBytes_FromStringAndSize(self._bytes, size))
        else:
            self.parser.feed(self._view[:size])
        if exchange.read_timeout > 0:
            exchange.last_read = self.deadlines.time()
        self._advance(exchange)

    def eof_received(self):
        """The server will send no more. An idle connection is dropped now; else connection_lost decides."""
        if self.state == ConnectionState.IDLE:
            self._close(CloseReason.IDLE_EOF)
        return False

    def connection_lost(self, exc):
        cdef Exchange exchange = self.exchange
        self.read_at = self.deadlines.now()
        if exchange is not None and exc is None and self._ssl_object is not None:
            self._take_rest(exchange)
            # None when the rest completed or broke it.
            exchange = self.exchange
        if exchange is not None and exchange.first_at == 0 and not exchange.is_dialled:
            self.stale_age = exchange.idle_for
        if exchange is not None:
            if exc is None and self.parser.ends_with_connection():
                self.parser.is_complete = True
                self._advance(exchange)
            else:
                exchange._fail(Failure.CONNECTION_LOST, exc, self.parser.unfinished_head())
        if self.state != ConnectionState.CLOSED:
            self._close(CloseReason.IDLE_EOF if exc is None else CloseReason.IDLE_RESET)
        self.transport = self._write = self.anchor = self._ssl_object = None
        if self._drain_waiters is not None:
            self._wake_drainers(True)
        self.owner._on_gone(self)

    cdef int _take_rest(self, Exchange exchange) except -1:
        """Read what TLS received but did not hand over before it reported the end.

        When TCP ends, uvloop's TLS reports the end even while reading is paused, close_notify or not, and
        asyncio's after one more read. What they had received by then stays in the TLS object: without
        it a body that ends with the connection would be cut, and nobody would know.
        """
        self.is_lost = True
        # There is no transport to pause any more: a reader that is behind gets the rest at once.
        self.is_reading_paused = True
        while self.exchange is exchange:
            try:
                data = self._ssl_object.read(READ_BUFFER_SIZE)
            except (SSLWantReadError, SSLZeroReturnError):
                return 0
            except Exception as exc:
                return exchange._fail(Failure.CONNECTION_LOST, exc, self.parser.unfinished_head())
            if not data:
                return 0
            self._figures.counts.bytes_in += len(data)
            self._totals.counts.bytes_in += len(data)
            if exchange.first_at == 0:
                exchange.first_at = self.read_at
            if self._left > 0:
                self._count_in(exchange, PyBytes_AS_STRING(data), len(data))
            else:
                self.parser.feed(data)
            self._advance(exchange)
        return 0

    def connection_made(self, transport):
        """Nothing: a transport is bound when it is connected already."""

    cdef int _advance(self, Exchange exchange) except -1:
        """Take from the parser what the last read brought."""
        cdef ResponseParser parser = self.parser
        cdef bint has_head = False
        if parser.error is not None:
            if exchange.head is None or not parser.is_complete:
                return exchange._fail(Failure.BAD_RESPONSE, parser.error, parser.unfinished_head())
            # Rubbish behind a whole message whose head the caller has: the message stands.
            parser.has_surplus = True
        if exchange.may_continue is not None and parser._informational:
            exchange._on_interim()
        if parser.head is None:
            return 0
        if exchange.head is None:
            has_head = True
            try:
                exchange._on_head(parser.head)
            except Exception as exc:
                return exchange._fail(Failure.BAD_RESPONSE, exc, None)
        if parser.parts:
            parts, parser.parts = parser.parts, []
            exchange._on_body(parts, parser.body_size)
        if parser.is_upgraded:
            # The connection stays with the response, for whoever speaks the other protocol.
            exchange._unlink()
        elif parser.is_complete and exchange.gate is self:
            self._finish(exchange)
            exchange._on_complete()
            has_head = True
        if has_head:
            exchange._wake()
        return 0

    cdef int _finish(self, Exchange exchange) except -1:
        """The response is complete: keep the connection, or close it for a named reason."""
        cdef CloseReason reason = self._why_close(exchange)
        exchange.gate = None
        exchange.end_at = self.read_at
        if exchange.head.keep_alive_field is not None:
            self._note_keep_alive(exchange.head.keep_alive_field)
        if exchange.upload is not None:
            exchange._cut()
        if reason != CloseReason.KEPT:
            return self._close(reason)
        self.exchange = None
        if self.is_reading_paused:
            self._resume()
        return self.owner._on_idle(self)

    cdef CloseReason _why_close(self, Exchange exchange) except *:
        if self.parser.has_surplus:
            return CloseReason.UPGRADED if exchange.head.status == 101 else CloseReason.SURPLUS_BYTES
        if self.force_close:
            return CloseReason.FORCE_CLOSE
        if self.is_lost or not exchange.head.keep_alive:
            return CloseReason.SERVER_CLOSES
        if exchange.upload is not None or exchange.is_unclean:
            return CloseReason.UPLOAD_UNFINISHED
        return CloseReason.KEPT

    # The full lane

    def lend(self, protocol):
        """Hand the transport of a reserved connection to another protocol.

        Args:
            protocol: an asyncio protocol; it sees `connection_made` at once.

        Raises:
            ConnectionResetError: the connection was lost after it was reserved.
        """
        if self.state == ConnectionState.CLOSED:
            raise ConnectionResetError("Cannot write to closing transport")
        self._set_state(ConnectionState.LENT)
        self.requests += 1
        self._figures.counts.requests += 1
        self._totals.counts.requests += 1
        transport = self.transport
        transport.set_protocol(protocol)
        if not self.is_tls:
            transport.pause_reading()
            transport.resume_reading()
        protocol.connection_made(transport)

    def take_back(self, bint is_writing_paused=False):
        """Become idle again after a loan that ended clean; the borrower must forget the transport.

        Args:
            is_writing_paused: the transport has told the borrower to stop writing.
        """
        if self.state != ConnectionState.LENT:
            raise RuntimeError(f"A connection in state {ConnectionState(self.state).name} was not lent")
        self.is_reading_paused = False
        self._paused = is_writing_paused
        self._bind(self.transport, True)
        self.owner._on_idle(self)

    # End

    def is_connected(self):
        """Whether the connection can be used, or is being used."""
        return self.state != ConnectionState.CLOSED and not self.transport.is_closing()

    def close(self, CloseReason reason=CloseReason.ABANDONED):
        """Close the connection unless it is closed already; an exchange under way fails."""
        if self.state != ConnectionState.CLOSED:
            self._close(reason)

    cdef int _drop(self, CloseReason reason) except -1:
        if self.state != ConnectionState.CLOSED:
            return self._close(CloseReason.UPGRADED if self.parser.is_upgraded else reason)
        return 0

    cdef int _close(self, CloseReason reason) except -1:
        cdef ConnectionState before = self.state
        cdef Exchange exchange = self.exchange
        cdef bint is_clean = before == ConnectionState.IDLE or (
            exchange is not None and exchange.gate is None and self.parser.is_complete
        )
        self._set_state(ConnectionState.CLOSED)
        self.close_reason = reason
        self._figures.closed(<int> reason, self.requests)
        self._totals.closed(<int> reason, self.requests)
        self.holder = None
        self.exchange = None
        self.idle_deadline._unlink()
        self.parser.release()
        transport = self.transport
        if transport is not None and before != ConnectionState.LENT:
            if is_clean and not self.is_tls and not transport.get_write_buffer_size():
                transport.close()
            else:
                # A half-read TLS response would go on downloading, unsent bytes would hold the socket.
                transport.abort()
        self.owner._on_closed(self, before)
        if exchange is not None and exchange.gate is self:
            exchange.gate = None
            exchange._fail(
                Failure.OWNER_CLOSED if reason == CloseReason.POOL_CLOSED else Failure.CONNECTION_LOST,
                None, None,
            )
        return 0


class PooledConnection(Connection, asyncio.BufferedProtocol):
    """The connection as event loops want it: asyncio asks for an instance of BufferedProtocol."""

    __slots__ = ()
