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


cpdef bytes fill(list pieces, list values):
    """Write a head of which all but some field values is known.

    Args:
        pieces: bytes that were checked before; one more than there are values.
        values: what stands between them, each a str.

    Raises:
        ValueError: a control character in a value.
        TypeError: a value that is not a str.
    """
    cdef Py_ssize_t i
    cdef list parts = [pieces[0]]
    for i in range(len(values)):
        parts.append(_encode(values[i]))
        parts.append(pieces[i + 1])
    return b"".join(parts)
