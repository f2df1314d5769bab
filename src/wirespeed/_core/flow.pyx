"""Flow control of a connection, both ways. The connection derives from it.

Reading pauses when the reader of a body is behind, writing when the transport has enough. It must not know
what is read or written.
"""


cdef class Flow(ReadGate):
    cdef int _pause(self) except -1:
        if not self.is_reading_paused and self.transport is not None:
            self.is_reading_paused = True
            self.transport.pause_reading()
        return 0

    cdef int _resume(self) except -1:
        if self.is_reading_paused and self.transport is not None:
            self.is_reading_paused = False
            self.transport.resume_reading()
        return 0

    def pause_writing(self):
        self._paused = True

    def resume_writing(self):
        self._paused = False
        if self._drain_waiters is not None:
            self._wake_drainers(False)

    cdef int _wake_drainers(self, bint is_lost) except -1:
        """There is room, or there never will be. One future each: a cancelled drain concerns no other."""
        waiters, self._drain_waiters = self._drain_waiters, None
        for waiter in waiters:
            if waiter.done():
                continue
            if is_lost:
                waiter.set_exception(ConnectionResetError("Connection lost"))
            else:
                waiter.set_result(None)
        return 0

    async def _drain_helper(self):
        """Wait until the transport takes more; the name is the one aiohttp's StreamWriter calls."""
        if self.transport is None:
            raise ConnectionResetError("Connection lost")
        if not self._paused:
            return
        if self._drain_waiters is None:
            self._drain_waiters = []
        waiter = self.loop.create_future()
        self._drain_waiters.append(waiter)
        await waiter

    cdef object _get_transport(self):
        return self.transport
