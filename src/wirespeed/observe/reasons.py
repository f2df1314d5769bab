"""Why connections end: the names under which the pool counts the connections that it closed."""

from enum import IntEnum


class CloseReason(IntEnum):
    """Why a connection was closed instead of kept; the numbers are those of the native core."""

    KEPT = 0
    """Not closed."""
    FORCE_CLOSE = 1
    """The connector keeps no connections (`force_close`)."""
    SERVER_CLOSES = 2
    """`Connection: close`, HTTP/1.0, or a body that ends with the connection."""
    SURPLUS_BYTES = 3
    """Bytes came after a complete response."""
    IDLE_BYTES = 4
    """Bytes came while nothing was asked."""
    IDLE_EOF = 5
    """The server closed it while it was idle."""
    IDLE_TIMEOUT = 6
    """It was idle for `keepalive_timeout`."""
    MALFORMED = 7
    """The response broke the protocol."""
    LOST = 8
    """The server closed it, or the network did, during a request."""
    ABANDONED = 9
    """The caller cancelled, or let go of an unread body."""
    TIMED_OUT = 10
    """A timeout of the request passed."""
    UPLOAD_UNFINISHED = 11
    """The response was complete before the request was."""
    UPGRADED = 12
    """It went on with another protocol."""
    LENT_UNCLEAN = 13
    """aiohttp's own code gave it back in doubt."""
    POOL_CLOSED = 14
    """The connector was closed."""
    IDLE_RESET = 15
    """The server, or the network, reset it while it was idle."""
    SERVER_TIMEOUT = 16
    """The server's `Keep-Alive` field said that it would not live longer, or serve more."""
    LEARNED_TIMEOUT = 17
    """Idle connections of this origin are known to be closed by the server at about this age."""
    MAX_AGE = 18
    """It was as old as `max_connection_age` allows."""
    MAX_REQUESTS = 19
    """It had served as many requests as `max_requests_per_connection` allows."""
    EVICTED = 20
    """It was idle, and `max_open` left no room for a connection that was needed."""
