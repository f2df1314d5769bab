"""The head of a response."""


cdef class ResponseHead:
    """Status line and fields of one final response (RFC 9112 section 4)."""
    cdef readonly int status
    cdef readonly int major
    cdef readonly int minor
    cdef bytes raw                      # what fields and reason are read from on demand, or None
    cdef list read                      # [(name, value)] of fields that were read one by one
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

    cdef int classify(self, bytes name, bytes value) except -1
    cdef Py_ssize_t scan(self, const char* text, Py_ssize_t size, Py_ssize_t line_max,
                         Py_ssize_t fields_max) except -1
    cdef bint _note(self, const char* name, Py_ssize_t name_size, const char* value,
                    Py_ssize_t size) except -1
    cdef bint _note_line(self, const char* name, Py_ssize_t name_size, const char* value,
                         Py_ssize_t size) except -1
    cdef bint _note_length(self, const char* value, Py_ssize_t size) noexcept
