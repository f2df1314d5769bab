"""The differences from aiohttp that are accepted, each with the section of the RFC that decides it.

The key is the id of a case or the name of a generated property. A listed difference that
no longer shows in a native build fails its test.
"""

from support.outcome import Known

_CONSTRUCTOR_FRAME = Known(
    ("warned_at",),
    "no RFC: aiohttp's constructor warns with a stack level that counts one frame; ours adds a frame, "
    "so the warning names our module. It is the same for every subclass of aiohttp's session.",
)

KNOWN: dict[str, Known] = {
    "session auth": _CONSTRUCTOR_FRAME,
    "session auth of a wrong type": _CONSTRUCTOR_FRAME,
    "request auth overrides the session's": _CONSTRUCTOR_FRAME,
}
