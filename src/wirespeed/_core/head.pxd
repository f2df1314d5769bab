"""A request head as bytes, or a refusal. Pure functions; nothing here knows a connection."""

# Request out
cpdef bytes request_line(str method, str target, int minor)
cpdef bytes field_lines(object items)
cpdef bint is_token(str name) except -1
cpdef bytes fill(list pieces, list values)
