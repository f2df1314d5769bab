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

_IDLE_BYTES = Known(
    ("wire", "connections", "probe", "result"),
    "RFC 9112 section 6.3: what follows the final response must not be taken for another response. aiohttp "
    "keeps a connection on which bytes came while it was idle, unless they break its parser; with a whole "
    "answer among them the next request is given that answer. Ours is closed.",
)

KNOWN: dict[str, Known] = {
    "session auth": _CONSTRUCTOR_FRAME,
    "session auth of a wrong type": _CONSTRUCTOR_FRAME,
    "request auth overrides the session's": _CONSTRUCTOR_FRAME,
    "half a head after the body": _IDLE_BYTES,
    **{
        f"idle, then the server {what}, then {method}": _IDLE_BYTES
        for what in ("sent an answer", "sent a line end", "sent a 100", "sent half a head")
        for method in ("GET", "POST")
    },
}
