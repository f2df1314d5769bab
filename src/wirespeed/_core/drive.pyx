"""The driver of a batch: no task and no future for a request that goes well.

Each request is an `Errand`: the coroutine of a single request (`request.pyx`), stepped not by a task but by
what it waits for. When its response is complete, the result goes to the consumer, and the next request is
written in the same callback. What is Python's to do (dialling by aiohttp, redirects, second tries,
middlewares) is done in a task. It must not know aiohttp, nor what a result is for.
"""

import asyncio
import contextvars
from time import perf_counter

cimport cython

from wirespeed._core.coroutine cimport CoroutineState, NativeCoroutine
from wirespeed._core.exchange cimport Failure
from wirespeed._core.instances cimport new_instance
from wirespeed._core.limits cimport HELD_MAX
from wirespeed._core.request cimport Stage, own_lane
from wirespeed._core.response cimport new_response

cdef object _clock = perf_counter
cdef object _CancelledError = asyncio.CancelledError


cdef class ResultFields:
    """What a result is made of; the class of the user's is derived from it."""


cdef class Results:
    """What iterates a batch; the class of the user's is derived from it."""

    def __aiter__(self):
        return self

    def __anext__(self):
        """Wait for the next result."""
        return self._drive.next()


@cython.final
cdef class Drive:
    """The requests of one batch.

    Taken and not yet handed over are at most twice `concurrency`: as many under way, as many waiting for the
    consumer, or in an ordered batch for an earlier one.

    Args:
        source: where the requests come from.
        work: makes results of what is not plain.
        concurrency: requests under way at the same time, at most.
        is_ordered: results are handed over in the order of the requests.
    """

    def __init__(self, source, work, Py_ssize_t concurrency, bint is_ordered):
        self.source = source
        self.take = source.take
        self.work = work
        self.session = work.session
        self.loop = work.session._loop
        self.context = contextvars.copy_context()
        self.result_class = work.result_class
        self.request_class = work.request_class
        self.options = work.options
        self.retrying = work.retrying
        self.is_plain = work.policies is None or self.retrying is not None
        self.url_class = work.url_class
        self.pending = source.PENDING
        self.max_body = -1 if work.max_body is None else work.max_body
        self.concurrency = concurrency
        self.is_ordered = is_ordered
        self.errands = set()
        self.ready = []
        self.early = {}

    @property
    def is_over(self):
        """Whether there is nothing to come any more, and nothing under way."""
        return self.is_closed or (self.has_ended and not self.under_way and self.at == len(self.ready))

    # The consumer's side

    def next(self):
        """Wait for the next result.

        Raises, when awaited:
            StopAsyncIteration: there are no more, or the batch was closed.
            RuntimeError: somebody else waits already; or the session was closed.
            What the source has raised, after all results of what came before.
        """
        cdef Next following = Next.__new__(Next)
        following.drive = self
        return following

    def close(self):
        """Stop taking, drop what is under way. Safe to call twice.

        Returns:
            The tasks that are about to end.
        """
        cdef Errand errand
        cdef list ending = []
        if self.is_closed:
            return ending
        self.is_closed = True
        self.ready.clear()
        self.at = 0
        self.early.clear()
        errands, self.errands = self.errands, set()
        for errand in errands:
            if errand.inner is not None:
                ending.append(errand.inner)
            errand.drop()
        self.wake()
        ending.extend(self.source.close())
        return ending

    cdef int wake(self) except -1:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
        return 0

    # The source's side

    cpdef fill(self):
        """Begin as many requests as there is room for."""
        if self.is_filling:
            return
        self.is_filling = True
        try:
            while self.has_room():
                try:
                    given = self.take()
                except StopIteration:
                    self.end(None)
                except (Exception, _CancelledError) as exc:
                    self.end(exc)
                else:
                    if given is self.pending:
                        break
                    self.begin(given)
        finally:
            self.is_filling = False

    cdef bint has_room(self) except -1:
        if self.is_closed or self.has_ended or self.under_way >= self.concurrency:
            return False
        self.is_stalled = self.taken - self.given >= 2 * self.concurrency or self.held >= HELD_MAX
        return not self.is_stalled

    cdef int end(self, object error) except -1:
        """There are no more requests."""
        if self.has_ended:
            return 0
        self.has_ended = True
        self.error = error
        return 0 if self.under_way else self.wake()

    # Requests

    cdef int begin(self, object given) except -1:
        cdef Errand errand = Errand.__new__(Errand)
        errand.drive = self
        errand.given = given
        errand.index = self.taken
        self.taken += 1
        self.under_way += 1
        self.errands.add(errand)
        if self.is_inside and self.is_wary:
            # The end of the connection that has just become free comes in the same turn, after the answer.
            self.loop.call_soon(errand._on_turn)
            return 0
        return errand.go(None)

    cdef int finish(self, Errand errand, ResultFields result) except -1:
        """Hand over a result, and begin the next request."""
        cdef Py_ssize_t size
        if self.is_closed:
            return 0
        self.errands.discard(errand)
        size = len(result.body)
        self.under_way -= 1
        self.size += size
        self.held += size
        self.failed += result.error is not None
        if not self.is_ordered:
            self.ready.append(result)
        else:
            self.early[result.index] = result
            while self.early:
                found = self.early.pop(self.given + len(self.ready) - self.at, None)
                if found is None:
                    break
                self.ready.append(found)
        self.wake()
        self.is_inside = True
        try:
            self.fill()
        finally:
            self.is_inside = False
        return 0

    cdef ResultFields new_result(self, Errand errand):
        cdef ResultFields result = new_instance(self.result_class)
        result._given = errand.given
        result.index = errand.index
        result.attempts = 1
        result.elapsed = <double> _clock() - errand.begun_at
        return result

    cdef ExchangeSettings settings_for(self, ExchangeSettings of_lane):
        """The lane's, but for bodies: these come whole, are decoded at their end, and are not too long."""
        if of_lane is not self.of_lane:
            self.settings = self.work.settings(of_lane)
            self.of_lane = of_lane
            self.decodes = of_lane.make_sink is not None
        return self.settings


@cython.final
cdef class Next(NativeCoroutine):
    cdef Drive drive

    cdef object _begin(self):
        cdef Drive drive = self.drive
        if drive.begun_at is None:
            drive.begun_at = drive.loop.time()
            drive.source.start(drive.concurrency, drive.fill)
            drive.fill()
        return self._take()

    cdef object _take(self):
        cdef Drive drive = self.drive
        cdef ResultFields result
        if drive.at == len(drive.ready):
            if drive.is_closed or (drive.has_ended and not drive.under_way):
                error, drive.error = drive.error, None
                raise StopAsyncIteration if error is None else error
            if drive.waiter is not None:
                raise RuntimeError("another coroutine already waits for the next result of this batch")
            drive.waiter = drive.loop.create_future()
            return self.wait(drive.waiter)
        result = drive.ready[drive.at]
        drive.ready[drive.at] = None
        drive.at += 1
        if drive.at == len(drive.ready):
            drive.ready.clear()
            drive.at = 0
        drive.given += 1
        drive.held -= len(result.body)
        if drive.is_stalled:
            # Not here: a source of nothing but errors would keep the loop from everything else.
            drive.is_stalled = False
            drive.loop.call_soon(drive.fill)
        return result

    cdef object _on_done(self):
        if not self.drive.waiter.done():
            return self.wait_on(self.drive.waiter)
        self.drive.waiter = None
        return self._take()

    cdef object _on_thrown(self, object exc):
        self.drive.waiter = None
        raise exc

    cdef int _end(self) except -1:
        NativeCoroutine._end(self)
        self.drive = None
        return 0

    cdef str _name(self):
        return "Batch.__anext__"


@cython.final
cdef class Errand(RequestCoroutine):
    # Steps

    cdef int go(self, object exc) except -1:
        """Take a step: what was waited for is there, or has failed."""
        cdef CoroutineState state = self.state
        cdef ResultFields result
        cdef Drive drive = self.drive
        self.state = CoroutineState.RUNNING
        try:
            if state == CoroutineState.NEW:
                self.begun_at = _clock()
                result = self._begin()
                if not self.is_settled and self.prepared is not None:
                    drive.retrying.count(self.prepared)
            elif state == CoroutineState.DELEGATED:
                task, self.inner = self.inner, None
                result = self._on_inner_done(task.result()) if exc is None else self._on_inner_failed(exc)
            else:
                self.awaited = None
                result = self._on_done() if exc is None else self._on_thrown(exc)
        except (KeyboardInterrupt, SystemExit):
            self._end()
            raise
        except BaseException as error:
            # Also a cancellation: somebody else may have cancelled the task.
            result = self._fail(error)
        if self.state == CoroutineState.RUNNING:
            self._end()
            drive.finish(self, result)
        return 0

    def _on_turn(self):
        """The loop has told which connections end."""
        if self.state == CoroutineState.NEW:
            self.go(None)

    cdef int drop(self) except -1:
        """End a request that nobody wants the result of."""
        cdef CoroutineState state = self.state
        self.state = CoroutineState.RUNNING
        if state == CoroutineState.DELEGATED:
            # Not before its first step: what it was given, such as a slot of the pool, it gives back itself.
            self.state = CoroutineState.ENDED
            self.drive.loop.call_soon(self.inner.cancel)
            self.inner.add_done_callback(self._on_left)
            return 0
        if state == CoroutineState.WAITING:
            try:
                self._on_thrown(_CancelledError())
            except BaseException:
                pass
        self._end()
        return 0

    cdef object _begin(self):
        cdef Drive drive = self.drive
        self.is_settled = True
        kind = type(self.given)
        if kind is str or kind is drive.url_class:
            self.method = "GET"
            self.str_or_url = self.given
            self.options = drive.options
        elif kind is drive.request_class:
            self.method = self.given.method
            self.str_or_url = self.given.url
            self.options = {**drive.options, **self.given.options()}
        else:
            self.method, self.str_or_url, _ = drive.work.arguments(self.given)
            self.options = drive.options
        self.is_settled = drive.retrying is None
        self.session = drive.session
        self.lane = own_lane(self.session)
        if self.lane is None or not drive.is_plain or callable(self.session._raise_for_status):
            return self._slowly()
        return RequestCoroutine._begin(self)

    cdef object wait(self, object future):
        self.state = CoroutineState.WAITING
        if future is not self:
            self.awaited = future
            future.add_done_callback(self._on_future)
        return None

    cdef object wait_on(self, object future):
        return self.wait(future)

    def _on_future(self, future):
        """What was waited for is done."""
        if self.state == CoroutineState.ENDED:
            return
        self.go(_CancelledError() if future.cancelled() else future.exception())

    def _on_left(self, task):
        """A task that nobody waits for any more has ended, perhaps before it could be cancelled."""
        if not task.cancelled() and task.exception() is None and self.stage == Stage.DIALLING:
            self.pool.give_back(task.result())
        self._end()

    cdef object delegate(self, object coroutine):
        if self.stage == Stage.DIALLING:
            return self.leave(coroutine)
        return self.leave(self.drive.work.collect(coroutine))

    cdef object leave(self, object coroutine):
        """Let a task go on in this one's place."""
        self.inner = self.drive.context.copy().run(self.drive.loop.create_task, coroutine)
        self.inner.add_done_callback(self._on_future)
        self.state = CoroutineState.DELEGATED
        return None

    cdef object _slowly(self):
        if self.session.closed:
            self.drive.end(RuntimeError("Session is closed"))
        self.is_settled = True
        self.stage = Stage.LEAVING
        return self.leave(self.drive.work.send(self.method, self.str_or_url, self.options))

    cdef object _hook(self):
        # What the batch's policies are around are whole requests, middlewares included.
        return RequestCoroutine._hook(self) if self.is_settled else self._slowly()

    # The exchange's future

    cdef object _waiter(self):
        return self

    cdef ExchangeSettings _settings(self):
        return self.drive.settings_for(self.lane.settings)

    def done(self):
        """Whether nothing more is wanted of the exchange."""
        return self.is_failed or self.state == CoroutineState.ENDED

    def set_result(self, result):
        """The head has come, or all of the response."""
        if self.state == CoroutineState.WAITING:
            self.go(None)

    def set_exception(self, exc):
        """The exchange has failed. It is in the middle of that: what follows has to wait."""
        self.is_failed = True
        if self.state == CoroutineState.WAITING:
            self.drive.loop.call_soon(self._on_failed, exc)

    def _on_failed(self, exc):
        if self.state == CoroutineState.WAITING:
            self.go(exc)

    def exception(self):
        """What the exchange has failed with."""
        return self.exchange.error

    # What came of it

    cdef object _on_thrown(self, object exc):
        cdef Exchange exchange = self.exchange
        if exchange is not None and exchange.head is not None and self.stage == Stage.SENT:
            if exchange.failure == Failure.BODY_TOO_LARGE and not exchange.wants_all:
                # It came with the head, which nobody has looked at.
                return self._answer()
            # In the middle of the body: not to be sent again.
            exchange.abandon()
            exchange.forget()
            raise exc
        if exchange is not None and exchange.first_at == 0 and not exchange.is_dialled:
            self.drive.is_wary = True
        self.is_failed = False
        return RequestCoroutine._on_thrown(self, exc)

    cdef object _answer(self):
        cdef Exchange exchange = self.exchange
        cdef ResponseHead head = exchange.head
        cdef int status = head.status
        cdef bint is_refused
        cdef bytes body
        cdef ResultFields result
        is_refused = self.raise_for_status is True and status >= 400
        if (is_refused or (300 <= status < 400 and self.follows)) and (
            # Its body is not what is asked for.
            exchange.error is None or exchange.failure == Failure.BODY_TOO_LARGE
        ):
            self.looked_at = self.respond(exchange)
            self.stage = Stage.LEAVING
            self.exchange = exchange.waiter = None
            return self.delegate(self.lane._look_at(self, self.looked_at))
        if head.has_cookies and not self.has_kept:
            # Now: its body may be long in coming, or fail.
            self.has_kept = True
            self.drive.work.keep_cookies(head.fields, self.prepared.real_url)
        if exchange.error is not None:
            raise exchange.error
        if not exchange.is_complete and not head.no_body:
            if 0 <= self.drive.max_body < head.content_length:
                exchange.abandon()
                raise self.drive.work.too_large()
            exchange.wants_all = True
            if exchange.is_paused:
                exchange.resume_reading()
            return self.wait(self)
        body = exchange.take_body()
        if not exchange.is_complete:
            # 101: the connection speaks something else from here on.
            exchange.abandon()
        if head.content_encoding is not None and body and self.drive.decodes:
            body = self.drive.work.decoded(body, head.content_encoding)
        if not self.is_settled and not self.drive.retrying.is_final(status):
            return self.again(self.respond(exchange), body, None)
        result = self.drive.new_result(self)
        result.status = status
        result.body = body
        result._head = head
        result._url = self.prepared
        return result

    cdef object respond(self, Exchange exchange):
        return new_response(
            self.lane.response_class, exchange, self.prepared, self.lane.resolve_charset, True
        )

    cdef object again(self, object resp, bytes body, object error):
        """Let the retry policy decide about an answer, or a failure."""
        self.is_settled = True
        self.stage = Stage.LEAVING
        self.looked_at = None
        return self.leave(
            self.drive.work.send_again(self, <double> _clock() - self.begun_at, resp, body, error)
        )

    cdef object _finish(self, object collected):
        """The response that Python has got."""
        resp, body = collected
        if resp is self.looked_at and self.drive.decodes:
            body = self.drive.work.decoded_of(resp, body)
        if not self.is_settled and not self.drive.retrying.is_final(resp.status):
            return self.again(resp, body, None)
        return self.drive.work.answered(
            self.given, self.index, resp, body, <double> _clock() - self.begun_at
        )

    cdef object _fail(self, object error):
        """What a request has come to that has failed: its result, or nothing yet."""
        if not self.is_settled and isinstance(error, Exception):
            return self.again(None, b"", error)
        self.state = CoroutineState.RUNNING
        return self.drive.work.failed(self.given, self.index, error, <double> _clock() - self.begun_at)

    cdef int _end(self) except -1:
        cdef Exchange exchange = self.exchange
        RequestCoroutine._end(self)
        if exchange is not None:
            exchange.waiter = None
            self.exchange = None
        self.looked_at = None
        return 0

    cdef str _name(self):
        return "ClientSession.batch"
