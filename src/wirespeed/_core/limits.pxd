"""Named sizes and times of the core, each with its unit and where it comes from.

Only numbers that a reader may want to question live here; what users set
(limit, keepalive_timeout, max_line_size, ...) reaches the core as arguments.
"""

cdef enum:
    # Bytes of the one read buffer that the connections of a pool share.
    # libuv suggests 64 KiB a read; 256 KiB is asyncio's own maximum (selector_events).
    READ_BUFFER_SIZE = 262144
    # Reads up to this many bytes (a page) are copied into a bytes object before parsing; larger
    # ones are parsed in place, through a slice of the buffer's memoryview.
    SMALL_READ = 4096
    # Bytes of the buffer that a read has before the head is there, without TLS.
    FIRST_READ = 32768
    # Bytes of the block whose release makes glibc keep twice as much free memory: at least, at most, and
    # as a multiple of the bodies that are received. glibc takes no notice of larger ones.
    BLOCK_MIN = 4194304
    BLOCK_MAX = 33000000
    BLOCK_BODIES = 16
    # Interim (1xx) responses accepted before the final one. Go's transport stops at 5, curl
    # counts bytes; a server that reports progress with 102 may send tens.
    INFORMATIONAL_MAX = 100
    # Bytes that an unfinished line may have beyond max_line_size and max_field_size, which
    # count neither "HTTP/1.1 200 " nor ": " nor CR.
    LINE_SLACK = 16
    # Hosts that the queue of the pool may hold beyond twice those that exist, before it is purged.
    QUEUE_SLACK = 64
    # Milliseconds to a second: the grid that deadlines are rounded up to.
    # uvloop's clock has the same resolution.
    TICKS_PER_SECOND = 1000
    # Seconds of loop time from which on a deadline is none (300 years): sys.maxsize and infinity
    # are ways to say "no timeout", and milliseconds have to fit 63 bits.
    NEVER = 10000000000
    # Seconds from which on a read timeout is rounded up to a whole second, as aiohttp's
    # ceil_threshold does for the total: else every millisecond would keep a bucket of its own.
    COARSE_FROM = 5
    # Classes that one guard watches; lanes.py needs five.
    WATCHED_MAX = 8
    # Parts of an unread body, chunk ends included, before reading pauses: a chunk may hold one
    # byte. aiohttp's StreamReader pauses at read_bufsize / 16 = 16,384 chunks.
    CHUNKS_MAX = 32768
    # Bytes of a body still to come from which on they are received without the parser, straight
    # into their place: a new parser for the next response costs as much as copying them.
    COUNTED_MIN = 32768
    # Bytes of a body whose place is made at once; longer ones are kept in parts, for a server may claim
    # any length.
    COUNTED_MAX = 67108864
    # Ends of idle connections at about the same age after which that age is believed.
    LEARN_AFTER = 3
    # Seconds that it is believed without being confirmed: servers get other settings.
    LEARNED_FOR = 600
    # Bytes of a body that goes out in one write with its head; prepare.py has the same.
    INLINE_BODY_MAX = 65536
    # Hosts without connections whose figures are kept: a crawler meets millions.
    HOSTS_REMEMBERED = 1024
    # Bytes of bodies that wait for the consumer of a batch, from which on no request is begun; portable.py
    # has the same.
    HELD_MAX = 67108864


cdef inline double margin_of(double seconds) noexcept:
    """How long before a server closes an idle connection it is not used any more, seconds.

    A request takes half a round trip to get there: a second is plenty, and of short times
    a quarter (undici and agentkeepalive take one second of any).
    """
    return min(1.0, seconds / 4)
