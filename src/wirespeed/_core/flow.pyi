import asyncio

from .exchange import ReadGate

class Flow(ReadGate):
    transport: asyncio.Transport | None
    _paused: bool
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    async def _drain_helper(self) -> None: ...
