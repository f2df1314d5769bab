from typing import final

from .message import ResponseHead

class HeadRefused(Exception): ...

@final
class ResponseParser:
    lenient: bool
    def __init__(self, lenient: bool = True) -> None: ...
    head: ResponseHead | None
    parts: list[bytes | None]
    body_size: int
    is_complete: bool
    has_surplus: bool
    is_upgraded: bool
    error: Exception | None
    def begin(self, skip_body: bool, max_line_size: int, max_field_size: int, max_headers: int) -> int: ...
    def feed(self, data: bytes | memoryview) -> int: ...
    def ends_with_connection(self) -> bool: ...
    def unfinished_head(self) -> list[bytes]: ...
