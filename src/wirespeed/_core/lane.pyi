from collections.abc import Callable, Iterable
from typing import Any, final

from .address import Origin
from .exchange import ExchangeSettings
from .guard import Watch
from .hosts import Host

@final
class Kept:
    things: dict[Any, Any]
    def get(self, key: Any) -> Any: ...
    def put(self, key: Any, thing: Any) -> int: ...
    def clear(self) -> int: ...

@final
class Shape:
    fields: list[tuple[str, str | int]]
    def __init__(self, fields: list[tuple[str, str | int]]) -> None: ...

class Prepared:
    method: str
    key: Any
    host: Host | None
    data: bytes
    skip_body: bool
    req: Any
    writer: Any
    has_upload: bool
    is_unclean: bool
    shape: Shape | None
    values: list[str]
    body: bytes
    headers: Any
    def __init__(self, method: str, real_url: Any, key: Any, data: bytes, skip_body: bool) -> None: ...
    @property
    def real_url(self) -> Any: ...

class Lane:
    express: int
    origins: dict[Any, Origin]
    settings: ExchangeSettings
    def __init__(
        self,
        watch: Watch,
        response_class: type,
        methods: Iterable[str],
        prepared_class: type[Prepared],
        sentinel: object,
    ) -> None: ...
    def renew(self, session: Any) -> bool: ...
    def origin(self, name: str, make_key: Callable[[], Any]) -> Origin: ...
