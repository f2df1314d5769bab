from typing import Any, final

@final
class Origin:
    key: Any
    shapes: dict[Any, Any]
    def __init__(self, key: Any) -> None: ...

@final
class Address:
    origin: Origin
    target: str
    def __init__(self, url: Any, origin: Origin, target: str, has_query: bool) -> None: ...
    @property
    def url(self) -> Any: ...

def plain_address(text: str, origins: dict[str, Origin]) -> Address | None: ...
