"""A request head as bytes. Called by the facade, which keeps the pieces that repeat.

Refuses what would let a value end its line: RFC 9110 section 5.5 forbids CR, LF and NUL in
field values, RFC 9112 section 3 knows one line for the request. Control characters besides
HTAB are refused too, as aiohttp does, with aiohttp's error. It must not add, order or guess
fields: what is written is what the caller listed.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_Check

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    bint PyUnicode_IS_ASCII(object text)

cdef enum:
    QUERY_MAX = 1024

# RFC 9110 section 5.6.2, without the letters and digits
cdef str TOKEN_MARKS = "!#$%&'*+-.^_`|~"
cdef bint[128] _is_tchar
cdef int _index
for _index in range(128):
    _is_tchar[_index] = chr(_index).isalnum() or chr(_index) in TOKEN_MARKS


cdef int _refuse_controls(const char* text, Py_ssize_t size) except -1:
    """Raise when a control character other than HTAB is in the text."""
    cdef Py_ssize_t i
    cdef unsigned char c
    for i in range(size):
        c = <unsigned char> text[i]
        if (c < 0x20 and c != 0x09) or c == 0x7F:
            raise ValueError(
                "Forbidden control character detected in headers. "
                "Potential header injection attack."
            )
    return 0


cdef bytes _encode(object text):
    """Encode one name, value or line as UTF-8 and check it.

    A lone surrogate has no UTF-8 form; it is left out, as aiohttp leaves it out.
    """
    cdef Py_ssize_t size
    cdef const char* data
    if not PyUnicode_Check(text):
        raise TypeError(f"Cannot serialize non-str key {text!r}")
    try:
        data = PyUnicode_AsUTF8AndSize(text, &size)
    except UnicodeEncodeError:
        encoded = str(text).encode("utf-8", "ignore")
        _refuse_controls(PyBytes_AS_STRING(encoded), len(encoded))
        return encoded
    _refuse_controls(data, size)
    return PyBytes_FromStringAndSize(data, size)


cpdef bytes request_line(str method, str target, int minor):
    """Write the request line of RFC 9112 section 3, its CRLF included.

    Args:
        method: an uppercase token.
        target: the request target, already percent-encoded.
        minor: the minor HTTP version, 0 or 1.

    Raises:
        ValueError: a control character in the method or the target.
    """
    return b"%b %b HTTP/1.%d\r\n" % (_encode(method), _encode(target), minor)


cpdef bytes field_lines(object items):
    """Write field lines (RFC 9112 section 5), in the order given, each with its CRLF.

    Args:
        items: pairs of name and value, both str.

    Returns:
        The lines; b"" for no items. The empty line that ends a head is the caller's.

    Raises:
        ValueError: a control character in a name or a value, or a name that is not a token.
        TypeError: a name or a value that is not a str.
    """
    cdef list pieces = []
    for name, value in items:
        encoded = _encode(name)
        if not is_token(str(name)):
            raise ValueError(f"Header name {name!r} is not a token (RFC 9110 section 5.1)")
        pieces.append(encoded)
        pieces.append(b": ")
        pieces.append(_encode(value))
        pieces.append(b"\r\n")
    return b"".join(pieces)


cpdef bint is_token(str name) except -1:
    """Tell whether a name is a token (RFC 9110 section 5.6.2): the form of methods and field names."""
    cdef Py_UCS4 c
    if not name:
        return False
    for c in name:
        if c >= 128 or not _is_tchar[c]:
            return False
    return True


cpdef bytes assemble(str method, str target, list pieces, list order, list values, bytes body):
    """Write a request of which all but the target and some field values is known.

    Args:
        method: an uppercase token.
        target: the request target, already percent-encoded.
        pieces: bytes that were checked before: the field lines between the values; one more than `order`.
        order: for each place between the pieces, the number of its value.
        values: of fields, each a str.
        body: what follows the head.

    Raises:
        ValueError: a control character in the target or a value.
        TypeError: a value that is not a str.
    """
    cdef Py_ssize_t i
    cdef list parts = [method.encode(), b" ", _encode(target), b" HTTP/1.1\r\n", pieces[0]]
    for i in range(len(order)):
        parts.append(_encode(values[<Py_ssize_t> order[i]]))
        parts.append(pieces[i + 1])
    parts.append(body)
    return b"".join(parts)


cpdef str plain_query(object params):
    """Write params as a query, where none of them needs quoting.

    Args:
        params: as users give them.

    Returns:
        What yarl makes of them, or None when they are no dict of str to str or int, or have characters
        other than the unreserved ones of RFC 3986 section 2.3, or are long.
    """
    cdef char[QUERY_MAX] text
    cdef Py_ssize_t size = 0
    if type(params) is not dict:
        return None
    for name, value in (<dict> params).items():
        if type(value) is int:
            value = str(value)
        if type(name) is not str or type(value) is not str or not name:
            return None
        if size:
            text[size] = c"&"
            size += 1
        size = _append_plain(text, size, name)
        if size < 0:
            return None
        text[size] = c"="
        size = _append_plain(text, size + 1, value)
        if size < 0:
            return None
    return text[:size].decode("ascii")


cdef Py_ssize_t _append_plain(char* text, Py_ssize_t size, str part) except -2:
    """Append to a query; returns the new size, or -1 where quoting is needed, or more room."""
    cdef Py_ssize_t i, length
    cdef unsigned char c
    cdef const char* data
    if not PyUnicode_IS_ASCII(part):
        return -1
    data = PyUnicode_AsUTF8AndSize(part, &length)
    if size + length + 2 >= QUERY_MAX:
        return -1
    for i in range(length):
        c = <unsigned char> data[i]
        if not (c"a" <= c <= c"z" or c"A" <= c <= c"Z" or c"0" <= c <= c"9"
                or c == c"-" or c == c"." or c == c"_" or c == c"~"):
            return -1
        text[size + i] = <char> c
    return size + length
