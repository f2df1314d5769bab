"""Where requests go, read off their URLs. Called by the lane.

Programs that send a million requests send them to a million URLs, and yarl takes longer to parse one than
all the rest takes that is done before a request is sent. What yarl makes of most is known beforehand: their
scheme, host and port are those of one that it has parsed, and in their path and query is nothing that it
would change. Such a URL is made when somebody asks for it. It must not judge: what is not plain is yarl's.
"""

from yarl import URL

cimport cython

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text)
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef object _URL = URL

# What a character may be part of. Those of a path and a query yarl leaves alone; none of them begins or ends
# another part.
cdef enum:
    IN_AUTHORITY = 1
    IN_PATH = 2
    IN_QUERY = 4

cdef unsigned char[256] _parts
cdef int _index
for _index in range(256):
    _parts[_index] = 0
    if _index < 128:
        if chr(_index).isalnum():
            _parts[_index] = IN_AUTHORITY | IN_PATH | IN_QUERY
        if chr(_index) in ".-:[]":
            _parts[_index] |= IN_AUTHORITY
        if chr(_index) in "-._~/:@=,":
            _parts[_index] |= IN_PATH
        if chr(_index) in "-._~/:@=,&":
            _parts[_index] |= IN_QUERY


@cython.final
cdef class Origin:
    """See address.pxd.

    Args:
        key: the connection key.
    """

    def __init__(self, key):
        self.key = key
        self.shapes = {}


@cython.final
@cython.freelist(64)
cdef class Address:
    """See address.pxd.

    Args:
        url: the URL.
        origin: its origin.
        target: its path and query, as on the wire.
        has_query: whether there is a query.
    """

    def __init__(self, url, Origin origin not None, str target not None, bint has_query):
        _fill(self, url, origin, target, has_query)

    @property
    def url(self):
        """The URL, without the params of the request; made when it is asked for."""
        if self.made is None:
            self.made = as_url(self.given)
        return self.made

    cdef str without_query(self):
        """The text before the query, or None where there is no query, or no text."""
        cdef Py_ssize_t at
        if type(self.given) is not str:
            return None
        at = (<str> self.given).find("?")
        return None if at < 0 else (<str> self.given)[:at]


cdef object as_url(object given):
    """The URL of what is one, or the text of one."""
    return _URL(given) if type(given) is str else given


cdef inline int _fill(Address address, object given, Origin origin, str target, bint has_query) except -1:
    address.given = given
    address.origin = origin
    address.target = target
    # As yarl joins queries.
    address.joint = "?" if not has_query else "" if target.endswith("&") else "&"
    return 0


cpdef Address plain_address(str text, dict origins):
    """Tell where a URL goes of which yarl would change nothing.

    Args:
        text: the URL.
        origins: {scheme://host:port, as yarl writes it: Origin}

    Returns:
        Its Address, or None where yarl has to parse it.
    """
    cdef Address address
    cdef Py_ssize_t size, at, path_at
    cdef Origin origin
    cdef const unsigned char* url
    if not PyUnicode_IS_ASCII(text):
        return None
    url = <const unsigned char*> PyUnicode_AsUTF8AndSize(text, &size)
    path_at = _end_of_authority(url, size)
    if path_at < 0:
        return None
    origin = origins.get(text[:path_at])
    if origin is None:
        return None
    at = path_at
    while at < size and _parts[url[at]] & IN_PATH:
        # Segments of dots are taken out of paths.
        if url[at] == c"." and url[at - 1] == c"/":
            return None
        at += 1
    has_query = at < size
    if has_query:
        # An empty query is left out of the target.
        if url[at] != c"?" or at + 1 == size:
            return None
        at += 1
        while at < size and _parts[url[at]] & IN_QUERY:
            at += 1
        if at < size:
            return None
    target = text[path_at:]
    if path_at == size or url[path_at] != c"/":
        target = "/" + target
    address = Address.__new__(Address)
    _fill(address, text, origin, target, has_query)
    return address


cdef inline Py_ssize_t _end_of_authority(const unsigned char* url, Py_ssize_t size) noexcept:
    """Where the path begins, or what stands for it; -1 where that is not plain to see."""
    cdef Py_ssize_t at = 0
    while at < size and c"a" <= url[at] <= c"z":
        at += 1
    if at == 0 or size - at < 4 or url[at] != c":" or url[at + 1] != c"/" or url[at + 2] != c"/":
        return -1
    at += 3
    while at < size and _parts[url[at]] & IN_AUTHORITY:
        at += 1
    return at if at == size or url[at] == c"/" or url[at] == c"?" else -1
