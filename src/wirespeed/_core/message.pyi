from typing import final

@final
class ResponseHead:
    status: int
    major: int
    minor: int
    keep_alive: bool
    chunked: bool
    no_body: bool
    content_length: int
    content_encoding: bytes | None
    content_type: bytes | None
    keep_alive_field: bytes | None
    has_cookies: bool
    has_location: bool
    @property
    def fields(self) -> list[tuple[bytes, bytes]]: ...
    @property
    def block(self) -> bytes: ...
    @property
    def reason(self) -> str: ...
