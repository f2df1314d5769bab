"""Where the time of one request went, and which connection it had. Made by responses."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Timings:
    """The stages of one request, the last hop of a redirect, in seconds; None for those that are not over.

    Attributes:
        queue: waiting for a slot, or for a connection of the pool.
        dns: resolving the name; 0 on a connection that was there, next to 0 for an address.
        connect: the TCP connection; 0 likewise.
        tls: the TLS handshake; 0 likewise.
        send: sending the request, body included; until the response, when that came first.
        first_byte: from the request's last byte to the first byte of the response.
        body: from the first byte of the response to its last.
    """

    queue: float
    dns: float
    connect: float
    tls: float
    send: float | None
    first_byte: float | None
    body: float | None

    @property
    def total(self) -> float | None:
        """All stages together; None while the response is not complete."""
        if self.send is None or self.first_byte is None or self.body is None:
            return None
        dialled = self.dns + self.connect + self.tls
        return self.queue + dialled + self.send + self.first_byte + self.body


@dataclass(frozen=True)
class ConnectionInfo:
    """The connection that a request was sent on, as it was then.

    Attributes:
        reused: it came from the pool; it was not made for this request.
        idle_for: seconds that it had been idle before; 0 when it was not reused.
        age: seconds since it was made.
        requests: which request of the connection this was; the first is 1.
        local: the address at this end, as of `socket.getsockname()`; None where it is not known.
        peer: the address of the server, or of the proxy.
        tls_version: such as "TLSv1.3"; None without TLS.
        tls_cipher: such as "TLS_AES_256_GCM_SHA384"; None without TLS.
    """

    reused: bool
    idle_for: float
    age: float
    requests: int
    local: tuple[object, ...] | str | None
    peer: tuple[object, ...] | str | None
    tls_version: str | None
    tls_cipher: str | None
