"""Where requests go, read off their URLs. URLs that nobody has asked for are not parsed."""

from wirespeed._core.cookies cimport CookieHeader
from wirespeed._core.hosts cimport Host


cdef class Origin:
    """What requests to one scheme, host and port have in common."""
    cdef readonly object key            # the connection key
    cdef Host host                      # the pool's Host of the key, from the first sending on
    cdef readonly dict shapes           # {(method, kind of body, has cookies, *names): Shape or None}


cdef class Address:
    """Where a request goes, as the user says it."""
    cdef object given                   # the URL without the params of the request, or the text of it
    cdef object made                    # the URL, once it was asked for
    cdef readonly Origin origin
    cdef readonly str target            # path and query
    cdef str joint                      # between the target and more of a query
    cdef CookieHeader cookies           # None: not known

    cdef str without_query(self)


cpdef Address plain_address(str text, dict origins)
cdef object as_url(object given)
