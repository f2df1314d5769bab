from collections.abc import Iterable
from typing import Any, final

@final
class CookieHeader:
    value: str | None

def remember(jar: Any, pairs: Iterable[tuple[str, str]], value: str | None) -> CookieHeader | None: ...
