"""A request head as bytes, or a refusal. Pure functions; nothing here knows a connection."""

# Request out
cpdef bytes request_line(str method, str target, int minor)
cpdef bytes field_lines(object items)
cpdef bint is_token(str name) except -1
cpdef bytes assemble(str method, str target, list pieces, list order, list values, bytes body)
cpdef str plain_query(object params)
cdef Py_ssize_t _append_plain(char* text, Py_ssize_t size, str part) except -2
