from typing import Any, final

WAIT_BOUNDS: tuple[float, ...]

@final
class Figures:
    def snapshot(self) -> dict[str, Any]: ...

@final
class ConnectionFacts:
    created_at: float
    dns: float
    connect: float
    tls: float
    local: Any
    peer: Any
    tls_version: str | None
    tls_cipher: str | None
    def __init__(
        self,
        *,
        dns: float = 0.0,
        connect: float = 0.0,
        tls: float = 0.0,
        local: Any = None,
        peer: Any = None,
        tls_version: str | None = None,
        tls_cipher: str | None = None,
    ) -> None: ...
