"""One HTTP/1 response at a time, out of bytes.

The parser is passive: `feed` takes what was read, and its owner then looks at what there is
to take. It makes no up-calls and knows neither a transport nor a request.
"""

cdef class ResponseHead:
    """Status line and fields of one final response."""
    cdef readonly int status
    cdef readonly int major
    cdef readonly int minor
    cdef readonly list fields           # [(name, value)] as received, OWS around values removed
    cdef bytes _reason
    # What the fields say, found while they were read
    cdef readonly bint keep_alive       # llhttp's verdict; false when the connection ends the body
    cdef readonly bint chunked          # Transfer-Encoding ends with chunked
    cdef readonly bint no_body          # the answer to HEAD, 1xx, 204, 304
    cdef readonly long long content_length   # -1: none given
    cdef readonly bytes content_encoding     # None: none given
    cdef readonly bytes content_type         # the first; None: none given
    cdef readonly bytes keep_alive_field     # None: none given
    cdef readonly bint has_cookies
    cdef readonly bint has_location


cdef class ResponseParser:
    # Settings
    cdef readonly bint lenient          # accept what aiohttp's parser accepts when it is not in debug mode
    cdef Py_ssize_t _max_line_size
    cdef Py_ssize_t _max_field_size
    cdef Py_ssize_t _max_headers

    # Response in: what the owner takes
    cdef readonly ResponseHead head              # None until the empty line was read
    cdef public list parts                     # body bytes in order; None marks the end of a chunk
    cdef readonly Py_ssize_t body_size           # bytes of body so far, as on the wire
    cdef readonly bint is_complete               # the whole message was read
    cdef readonly bint has_surplus               # bytes came after the message
    cdef readonly bint is_upgraded               # 101: from here on the connection speaks another protocol
    cdef readonly object error                   # why the message is malformed, or None

    # While a head is read
    cdef object _llhttp                 # httptools.HttpResponseParser
    cdef object _feed
    cdef ResponseHead _reading
    cdef list _fragments                # reads of an unfinished head
    cdef Py_ssize_t _head_size          # bytes of an unfinished head, and of its unfinished line
    cdef Py_ssize_t _line_size
    cdef object _data                   # the read being parsed
    cdef int _informational             # 1xx responses seen
    cdef int _trailers
    cdef Py_ssize_t _name_size          # of the field before; 0: none yet
    cdef bint _is_refused               # a field that no response may have
    cdef bint _skip_body                # the request was HEAD
    cdef bint _is_fresh                 # llhttp has no state of an earlier message

    # Owner's side
    cpdef int begin(self, bint skip_body, Py_ssize_t max_line_size, Py_ssize_t max_field_size,
                    Py_ssize_t max_headers) except -1
    cpdef int feed(self, object data) except -1
    cdef int end_elsewhere(self, bint has_surplus) except -1
    cdef int release(self) except -1
    cpdef bint ends_with_connection(self) noexcept
    cpdef list unfinished_head(self)

    # httptools' callbacks, helpers
    cdef int _renew(self) except -1
    cdef int _classify(self, ResponseHead head, bytes name, bytes value) except -1
    cdef int _bound_field(self, bytes name, bytes value) except -1
    cdef int _bound(self, bytes data) except -1
