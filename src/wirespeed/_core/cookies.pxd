"""What a cookie jar sends to a URL, for as long as that is known."""


cdef class CookieRecord:
    """One cookie, as it was."""
    cdef object pair                    # (domain, path) in the jar
    cdef object name
    cdef object key                     # (domain, path, name)
    cdef object morsel
    cdef object secure, domain, path    # of the morsel
    cdef object entry                   # of the jar's own cache, or None
    cdef object coded_value             # of what is sent, or None
    cdef bint is_host_only


cdef class CookieHeader:
    cdef readonly object value          # of the field Cookie; None for no cookies
    cdef list pairs                     # where cookies of the URL may be
    cdef list buckets                   # what is there: SimpleCookies, or None
    cdef list sizes
    cdef list records
    cdef list used                      # keys of the cookies that are sent
    cdef object quotes, unsafe, secure_origins      # settings of the jar

    cdef bint holds(self, dict jar) except -1
    cdef int touch(self, dict jar) except -1
