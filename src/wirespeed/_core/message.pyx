"""Heads of responses, and the plain ones among them read in one go. Called by the parser.

A plain head came whole, with HTTP/1.1, CRLF, one token and one colon to a line, no control characters, and
nothing that says how the message is framed but one Content-Length. All others are left to llhttp's callbacks,
field by field, and llhttp decides about framing in either case. It must not judge: what is not plain is
not wrong.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX
from libc.string cimport memchr, memcmp

# Of RFC 9110 section 5.6.2
cdef str TOKEN_MARKS = "!#$%&'*+-.^_`|~"
cdef bint[256] _is_tchar
cdef int _index
for _index in range(256):
    _is_tchar[_index] = _index < 128 and (chr(_index).isalnum() or chr(_index) in TOKEN_MARKS)


cdef inline bint _is_named(const char* name, Py_ssize_t size, const char* lower) noexcept:
    """Compare a field name of the right length with a lowercase one, ignoring case."""
    cdef Py_ssize_t i
    for i in range(size):
        if (name[i] | 0x20) != lower[i]:
            return False
    return True


@cython.final
@cython.freelist(64)
cdef class ResponseHead:
    """See message.pxd."""

    def __cinit__(self):
        self.content_length = -1

    @property
    def fields(self):
        """Pairs of name and value as received, white space around values removed."""
        cdef list lines
        if self.read is None:
            self.read = []
            lines = self.raw.split(b"\r\n")
            for line in lines[1:len(lines) - 2]:
                name, _, value = line.partition(b":")
                self.read.append((name, value.strip(b" \t")))
        return self.read

    @property
    def block(self):
        """The lines of the fields."""
        if self.raw is None:
            return b"".join([b"%b: %b\r\n" % field for field in self.read])
        return self.raw[self.raw.index(b"\n") + 1:len(self.raw) - 2]

    @property
    def reason(self):
        """The reason phrase, "" when there is none; bytes that are not UTF-8 become surrogates."""
        if self._reason is None:
            if self.raw is None:
                return ""
            # After "HTTP/1.1 200 "
            self._reason = self.raw[13:self.raw.index(b"\r\n")]
        return self._reason.decode("utf-8", "surrogateescape")

    cdef int classify(self, bytes name, bytes value) except -1:
        """Note the few fields that the core or the facade acts on."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(name)
        cdef const char* text = PyBytes_AS_STRING(name)
        if size == 14 and _is_named(text, size, b"content-length"):
            # llhttp has refused what is not a number, or does not fit 64 bits.
            self.content_length = min(int(value), INT64_MAX)
        elif size == 17 and _is_named(text, size, b"transfer-encoding"):
            self.chunked = value.lower().rpartition(b",")[2].strip() == b"chunked"
        else:
            self._note(text, size, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        return 0

    cdef bint _note(self, const char* name, Py_ssize_t name_size, const char* value,
                    Py_ssize_t size) except -1:
        """Note what a field says; false for one that makes a head other than plain."""
        if name_size == 7:
            return not _is_named(name, 7, b"upgrade")
        if name_size == 8:
            if _is_named(name, 8, b"location"):
                self.has_location = True
        elif name_size == 10:
            if _is_named(name, 10, b"set-cookie"):
                self.has_cookies = True
            elif _is_named(name, 10, b"keep-alive"):
                text = PyBytes_FromStringAndSize(value, size)
                # Several lines are one list (RFC 9110 section 5.3).
                if self.keep_alive_field is not None:
                    text = self.keep_alive_field + b"," + text
                self.keep_alive_field = text
        elif name_size == 12:
            if self.content_type is None and _is_named(name, 12, b"content-type"):
                self.content_type = PyBytes_FromStringAndSize(value, size)
        elif name_size == 14:
            if _is_named(name, 14, b"content-length"):
                return self._note_length(value, size)
        elif name_size == 16:
            if _is_named(name, 16, b"content-encoding"):
                self.content_encoding = PyBytes_FromStringAndSize(value, size)
        elif name_size == 17:
            return not _is_named(name, 17, b"transfer-encoding")
        elif name_size == 18:
            return not _is_named(name, 18, b"sec-websocket-key1")
        return True

    cdef bint _note_length(self, const char* value, Py_ssize_t size) noexcept:
        cdef Py_ssize_t i
        cdef long long length = 0
        if self.content_length >= 0 or not 0 < size <= 18:
            return False
        for i in range(size):
            if not c"0" <= value[i] <= c"9":
                return False
            length = 10 * length + (value[i] - c"0")
        self.content_length = length
        return True

    cdef Py_ssize_t scan(self, const char* text, Py_ssize_t size, Py_ssize_t line_max,
                         Py_ssize_t fields_max) except -1:
        """Read a plain head.

        Args:
            text: what was read of the response.
            size: how many bytes of it.
            line_max: bytes of a line, beyond which the head is not plain.
            fields_max: likewise, of fields.

        Returns:
            The bytes of the head, or 0 when it is not plain; it has to be read otherwise then, by another
            ResponseHead.
        """
        cdef const char* end
        cdef Py_ssize_t at, colon, line, last, count = 0
        if size < 19 or memcmp(text, b"HTTP/1.1 ", 9) != 0 or (text[12] != c" " and text[12] != c"\r"):
            return 0
        for at in range(9, 12):
            if not c"0" <= text[at] <= c"9":
                return 0
            self.status = 10 * self.status + (text[at] - c"0")
        if self.status < 200:
            return 0
        at = 12
        while True:
            end = <const char*> memchr(text + at, c"\n", size - at)
            if end is NULL:
                return 0
            last = end - text - 1
            if text[last] != c"\r" or last - at > line_max or not _is_text(text, at, last):
                return 0
            if count > 0:
                if last == at:
                    break
                colon = at
                while _is_tchar[<unsigned char> text[colon]]:
                    colon += 1
                if colon == at or text[colon] != c":":
                    return 0
                line = last
                while text[line - 1] == c" " or text[line - 1] == c"\t":
                    line -= 1
                if not self._note_line(text + at, colon - at, text + colon + 1, line - colon - 1):
                    return 0
            count += 1
            if count > fields_max + 1:
                return 0
            at = last + 2
        self.raw = PyBytes_FromStringAndSize(text, last + 2)
        self.major = self.minor = 1
        return last + 2

    cdef bint _note_line(self, const char* name, Py_ssize_t name_size, const char* value,
                         Py_ssize_t size) except -1:
        """Note a field, without the white space before its value."""
        while size > 0 and (value[0] == c" " or value[0] == c"\t"):
            value += 1
            size -= 1
        return self._note(name, name_size, value, max(size, 0))


cdef inline bint _is_text(const char* text, Py_ssize_t at, Py_ssize_t end) noexcept:
    """Whether there are no control characters but HTAB. All are looked at: compilers then take 16 at once."""
    cdef Py_ssize_t i
    cdef unsigned char c
    cdef unsigned char bad = 0
    for i in range(at, end):
        c = <unsigned char> text[i]
        bad |= ((c < 0x20) & (c != 0x09)) | (c == 0x7F)
    return bad == 0
