"""A dial without a task: its steps, its ends, and whoever gives up meanwhile."""

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from wirespeed._core.connection import ConnectionState
from wirespeed._core.dial import Dial, start_dial
from wirespeed._core.hosts import ConnectTimeout, PoolClosed, Waiter

from .fakes import FakeLoop, FakeTransport, PoolFixture, new_settings, transport_of

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ADDRESS = ("127.0.0.1", 80)
REFUSED = ConnectionRefusedError(111, "Connection refused")


class ConnectingLoop(FakeLoop):
    """A loop whose connections are made when the test says so, as uvloop makes them."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, int]] = []
        self.connecting: list[asyncio.Future[Any]] = []
        self.transports: list[FakeTransport] = []
        self.fails_with: BaseException | None = None
        self.is_made_at_once = False

    async def create_connection(self, factory: Callable[[], Any], host: str, port: int) -> Any:
        self.asked.append((host, port))
        protocol = factory()
        if self.fails_with is not None:
            raise self.fails_with
        transport = FakeTransport(self)
        transport.protocol = protocol
        waiter = self.create_future()
        self.connecting.append(waiter)
        self.transports.append(transport)
        if self.is_made_at_once:
            self.make(-1)
        try:
            await waiter
        except BaseException:
            transport.end = "abort"
            raise
        finally:
            del waiter  # as in loops: it has the exception, whose traceback holds this frame
        return transport, protocol

    def make(self, number: int = 0) -> FakeTransport:
        """Connect: tell the protocol, then whoever awaits."""
        transport = self.transports[number]
        transport.protocol.connection_made(transport)
        self.connecting[number].set_result(None)
        return transport


class Dialling(PoolFixture):
    loop: ConnectingLoop

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.loop = ConnectingLoop()
        chosen: dict[str, Any] = {"limit": 10, "limit_per_host": 0, "keepalive_timeout": 15.0}
        self.pool = type(self.pool)(self.loop, **(chosen | options))  # type: ignore[arg-type]
        self.pool.dial_error = lambda key, address, exc, has_waited: Refused(key, address, exc, has_waited)

    def wait_for_dial(self, key: str = "a", **options: float) -> Waiter:
        host = self.pool.host(key)
        assert self.pool.try_reserve(host)
        return self.pool.begin_dial(host, **options)

    def dial(self, at: float = 0.0, **options: float) -> tuple[Waiter, Dial]:
        waiter = self.wait_for_dial(**options)
        return waiter, start_dial(self.pool, waiter, ADDRESS, at)

    def assert_nothing_left(self, **figures: int) -> None:
        self.loop.run_ready()
        found = self.pool.snapshot()
        expected = {"in_use": 0, "idle": 0, "dialling": 0, "dial_failures": 0} | figures
        assert {name: found[name] for name in expected} == expected
        assert not self.pool.dials
        assert not self.loop.timers
        assert not self.loop.errors


class Refused(Exception):
    """What the facade would have made of an OSError."""


@pytest.fixture
def fixture() -> Dialling:
    return Dialling(keepalive_timeout=None)


def test_dial_serves_its_caller(fixture: Dialling) -> None:
    waiter, dial = fixture.dial()
    assert fixture.loop.asked == [ADDRESS]
    assert not dial.done()
    assert fixture.pool.dials == {dial}
    transport = fixture.loop.make()
    conn = waiter.future.result()
    assert conn is not None
    assert (conn.transport, conn.state, conn.is_dialled) == (transport, ConnectionState.RESERVED, True)
    assert transport.get_protocol() is conn
    # Reading begins when the connection is made: there is nothing to begin anew.
    assert transport.calls == ["set_protocol"]
    fixture.loop.run_ready()
    assert dial.done()
    assert not dial.cancel()
    fixture.pool.give_back(conn)
    fixture.assert_nothing_left(idle=1, created=1)


def test_connection_is_used_before_the_loop_tells_of_it(fixture: Dialling) -> None:
    waiter, dial = fixture.dial()
    fixture.loop.make()
    conn = waiter.future.result()
    assert conn is not None
    exchange = conn.send(b"request", new_settings())
    transport_of(conn).feed(OK)
    assert exchange.is_complete
    assert not dial.done()
    fixture.assert_nothing_left(idle=1)
    assert dial.done()


def test_loop_that_connects_in_the_call(fixture: Dialling) -> None:
    fixture.loop.is_made_at_once = True
    waiter, _ = fixture.dial()
    conn = waiter.future.result()
    assert conn is not None
    fixture.pool.give_back(conn)
    fixture.assert_nothing_left(idle=1)


@pytest.mark.parametrize("at_once", [True, False])
def test_failure_is_told_in_the_words_of_the_facade(fixture: Dialling, at_once: bool) -> None:
    fixture.loop.fails_with = REFUSED if at_once else None
    waiter, dial = fixture.dial()
    if not at_once:
        fixture.loop.connecting[0].set_exception(REFUSED)
        fixture.loop.run_ready()
    error = waiter.future.exception()
    assert isinstance(error, Refused)
    assert error.args == ("a", ADDRESS, REFUSED, not at_once)
    assert dial.done()
    fixture.assert_nothing_left(dial_failures=1)


def test_failure_that_is_none_of_the_network_is_told_as_it_is(fixture: Dialling) -> None:
    fixture.loop.fails_with = error = RuntimeError("unable to perform operation")
    waiter, _ = fixture.dial()
    assert waiter.future.exception() is error
    fixture.assert_nothing_left(dial_failures=1)


def test_loop_that_cannot_be_asked(fixture: Dialling) -> None:
    def raises(*args: Any) -> Any:
        raise TypeError("no such argument")

    fixture.loop.create_connection = raises  # type: ignore[method-assign]
    waiter, dial = fixture.dial()
    assert isinstance(waiter.future.exception(), TypeError)
    assert dial.done()
    fixture.assert_nothing_left(dial_failures=1)


def test_loop_that_returns_without_a_connection(fixture: Dialling) -> None:
    async def nothing(*args: Any) -> Any:
        return None, None

    fixture.loop.create_connection = nothing  # type: ignore[method-assign]
    waiter, _ = fixture.dial()
    assert isinstance(waiter.future.exception(), Refused)
    fixture.assert_nothing_left(dial_failures=1)


def test_loop_that_yields_only(fixture: Dialling) -> None:
    connect = fixture.loop.create_connection

    async def yields(*args: Any) -> Any:
        await asyncio.sleep(0)
        return await connect(*args)

    fixture.loop.create_connection = yields  # type: ignore[method-assign]
    waiter, _ = fixture.dial()
    assert not fixture.loop.connecting
    fixture.loop.run_ready()
    fixture.loop.make()
    assert waiter.future.result() is not None
    fixture.assert_nothing_left(in_use=1)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_goes_on_to_the_loop(fixture: Dialling, kind: type[BaseException]) -> None:
    waiter, _ = fixture.dial()
    fixture.loop.connecting[0].set_exception(kind())
    with pytest.raises(kind):
        fixture.loop.run_ready()
    assert isinstance(waiter.future.exception(), kind)
    fixture.assert_nothing_left(dial_failures=1)


# Giving up


@pytest.mark.parametrize("rounds", [0, 1])
def test_cancelled_dial_gives_its_slot_back(fixture: Dialling, rounds: int) -> None:
    waiter, dial = fixture.dial()
    for _ in range(rounds):
        fixture.loop.run_ready()
    fixture.pool.cancel(waiter)
    assert dial.cancel()
    # As with a task: the slot is held until the loop has let go.
    assert fixture.pool.dialling == 1
    fixture.loop.run_ready()
    assert fixture.loop.transports[0].end == "abort"
    assert dial.done()
    fixture.assert_nothing_left(dial_failures=1)


def test_dial_that_is_cancelled_on_its_own_cancels_who_waits(fixture: Dialling) -> None:
    waiter, dial = fixture.dial()
    dial.cancel()
    fixture.loop.run_ready()
    assert waiter.future.cancelled()
    fixture.assert_nothing_left(dial_failures=1)


def test_connection_that_is_made_after_the_cancellation_is_closed(fixture: Dialling) -> None:
    waiter, dial = fixture.dial()
    fixture.pool.cancel(waiter)
    dial.cancel()
    transport = fixture.loop.transports[0]
    transport.protocol.connection_made(transport)
    assert transport.end == "abort"
    fixture.assert_nothing_left(dial_failures=1, created=0)


def test_cancelled_when_the_loop_has_the_connection_and_has_not_told(fixture: Dialling) -> None:
    """The future is done already: the coroutine gets the cancellation at its next step."""
    waiter, dial = fixture.dial()
    fixture.loop.connecting[0].set_result(None)
    fixture.pool.cancel(waiter)
    dial.cancel()
    fixture.assert_nothing_left(dial_failures=1, created=0)
    assert fixture.loop.transports[0].end == "abort"


def test_cancelled_after_it_was_made_is_too_late(fixture: Dialling) -> None:
    waiter, dial = fixture.dial()
    transport = fixture.loop.make()
    fixture.pool.cancel(waiter)
    assert not dial.cancel()
    fixture.loop.run_ready()
    assert transport.end is None
    fixture.assert_nothing_left(idle=1, created=1)


def test_freed_connection_comes_first_and_the_dial_joins_the_pool(fixture: Dialling) -> None:
    conn = fixture.connect()
    waiter, _ = fixture.dial()
    fixture.pool.give_back(conn)
    assert waiter.future.result() is conn
    fixture.loop.make()
    fixture.assert_nothing_left(in_use=1, idle=1, created=2, reused=1)


# Time


def test_time_for_connecting_passes(fixture: Dialling) -> None:
    waiter, dial = fixture.dial(at=1001.0)
    fixture.loop.advance(0.9)
    assert not waiter.future.done()
    fixture.loop.advance(0.2)
    error = waiter.future.exception()
    assert type(error) is ConnectTimeout
    assert isinstance(error.__cause__, asyncio.TimeoutError)
    assert isinstance(error.__cause__.__cause__, asyncio.CancelledError)
    assert dial.done()
    assert fixture.loop.transports[0].end == "abort"
    fixture.assert_nothing_left(dial_failures=1)


def test_deadline_ends_with_the_dial(fixture: Dialling) -> None:
    waiter, _ = fixture.dial(at=1001.0)
    transport = fixture.loop.make()
    fixture.loop.advance(5)
    assert transport.end is None
    conn = waiter.future.result()
    assert conn is not None
    fixture.pool.give_back(conn)
    fixture.assert_nothing_left(idle=1)


def test_loops_own_timeout_counts_as_the_deadline(fixture: Dialling) -> None:
    fixture.loop.fails_with = asyncio.TimeoutError()
    waiter, _ = fixture.dial()
    error = waiter.future.exception()
    assert type(error) is ConnectTimeout
    assert error.__cause__ is fixture.loop.fails_with


def test_kernels_timeout_is_a_failure(fixture: Dialling) -> None:
    fixture.loop.fails_with = OSError(110, "Connection timed out")
    waiter, _ = fixture.dial()
    assert isinstance(waiter.future.exception(), Refused)


# The pool


def test_pool_that_was_closed_meanwhile_gets_nothing(fixture: Dialling) -> None:
    waiter, dial = fixture.dial()
    fixture.pool.close()
    assert isinstance(waiter.future.exception(), PoolClosed)
    transport = fixture.loop.make()
    assert transport.end == "abort"
    fixture.loop.run_ready()
    assert dial.done()
    fixture.assert_nothing_left()


@pytest.mark.parametrize("when", ["before", "after"])
def test_end_can_be_waited_for(fixture: Dialling, when: str) -> None:
    _, dial = fixture.dial()
    ended = dial.wait_ended()
    assert not ended.done()
    assert dial.wait_ended() is ended
    fixture.loop.make()
    fixture.loop.run_ready()
    assert (ended if when == "before" else dial.wait_ended()).done()


def test_callback_is_called_at_the_end(fixture: Dialling) -> None:
    told: list[Dial] = []
    _, dial = fixture.dial()
    dial.add_done_callback(told.append)
    fixture.loop.make()
    assert told == []
    fixture.loop.run_ready()
    assert told == [dial]


def test_options_are_set_before_the_connection_is_used(fixture: Dialling) -> None:
    seen: list[Any] = []
    fixture.pool.set_options = seen.append
    fixture.dial()
    assert seen == []
    transport = fixture.loop.make()
    assert seen == [transport]


def test_options_that_the_kernel_refuses(fixture: Dialling) -> None:
    error = OSError(22, "Invalid argument")

    def refuse(transport: Any) -> None:
        raise error

    fixture.pool.set_options = refuse
    waiter, _ = fixture.dial()
    transport = fixture.loop.make()
    told = waiter.future.exception()
    assert isinstance(told, Refused)
    assert told.args == ("a", ADDRESS, error, False)
    assert transport.end == "abort"
    fixture.assert_nothing_left(dial_failures=1, created=0)


def test_addresses_and_time_are_kept(fixture: Dialling) -> None:
    waiter, _ = fixture.dial()
    fixture.loop.now += 0.25
    transport = fixture.loop.transports[0]
    known = {"sockname": ("127.0.0.1", 5), "peername": ADDRESS}
    transport.get_extra_info = lambda name, default=None: known.get(name, default)  # type: ignore[method-assign]
    fixture.loop.make()
    conn = waiter.future.result()
    assert conn is not None
    facts = conn.facts
    assert (facts.local, facts.peer) == (("127.0.0.1", 5), ADDRESS)
    assert (facts.dns, facts.connect, facts.tls) == (0.0, 0.25, 0.0)


@pytest.mark.parametrize("is_made", [True, False])
def test_nothing_of_it_stays(fixture: Dialling, is_made: bool) -> None:
    gc.disable()
    try:
        waiter, dial = fixture.dial(at=1001.0)
        watched = weakref.ref(fixture.loop.connecting[0])
        if is_made:
            fixture.loop.make()
        else:
            fixture.loop.connecting[0].set_exception(OSError(111, "refused"))
        fixture.loop.run_ready()
        waiter.future.exception()
        fixture.loop.connecting.clear()
        fixture.loop.transports.clear()
        del waiter, dial
        assert watched() is None
    finally:
        gc.enable()
