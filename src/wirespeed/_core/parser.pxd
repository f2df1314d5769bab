"""One HTTP/1 response at a time, out of bytes.

The parser is passive: `feed` takes what was read, and its owner then looks at what there is
to take. It makes no up-calls and knows neither a transport nor a request.
"""

from wirespeed._core.message cimport ResponseHead


cdef class PlainCallbacks:
    """What llhttp calls for a response whose head was read already."""
    cdef ResponseParser parser


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
    cdef object _llhttp                 # httptools.HttpResponseParser, once it is needed
    cdef object _plain_llhttp           # another, with PlainCallbacks
    cdef bint _is_plain                 # which of them has this response
    cdef bint _is_stale                 # and cannot have the next one
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

    # Owner's side
    cpdef int begin(self, bint skip_body, Py_ssize_t max_line_size, Py_ssize_t max_field_size,
                    Py_ssize_t max_headers) except -1
    cpdef int feed(self, object data) except -1
    cdef int end_elsewhere(self, bint has_surplus) except -1
    cdef int release(self) except -1
    cpdef bint ends_with_connection(self) noexcept
    cpdef list unfinished_head(self)

    # httptools' callbacks, helpers
    cdef object _new_llhttp(self, object callbacks)
    cdef object _choose(self, object data)
    cdef int _bound_field(self, bytes name, bytes value) except -1
    cdef int _bound(self, bytes data) except -1
