"""Native or pure: decided once, at import, for the whole process.

`NATIVE` is true when the compiled core is present and not switched off with
`WIRESPEED_NO_EXTENSIONS=1`. Only this module reads the variable; every other
module imports `NATIVE`.
"""

import os
from typing import Final

_OFF = os.environ.get("WIRESPEED_NO_EXTENSIONS", "") not in ("", "0")


def _core_is_importable() -> bool:
    if _OFF:
        return False
    try:
        from ._core import (  # noqa: F401
            address,
            clock,
            connection,
            cookies,
            coroutine,
            deadlines,
            dial,
            drive,
            exchange,
            figures,
            flow,
            guard,
            head,
            hooked,
            hop,
            hosts,
            lane,
            learning,
            message,
            parser,
            policed,
            pool,
            request,
            response,
            rethrow,
        )
    except ImportError:
        return False
    return True


NATIVE: Final[bool] = _core_is_importable()
