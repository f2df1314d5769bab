"""A request under policies, as a coroutine: through the gates, to the handler, and back to all of them.

What goes well costs no frame of Python but those of the gates. Where an attempt has to wait, fails, is to be
sent again or is late, `Policies` go on in Python from where it is; the steps are as in `Policies._perform`.
Made by `Plan`, which Policies call. It must not decide anything, nor know what its gates are.
"""

import asyncio

cimport cython
from cpython.contextvars cimport get_value

from wirespeed._core.coroutine cimport NativeCoroutine, as_coroutine
from wirespeed._core.deadlines cimport Deadlines
from wirespeed._core.hop cimport Hop

cdef object _running_loop = asyncio.get_running_loop
cdef object _current_task = asyncio.current_task


# What is kept


@cython.final
cdef class Gateway:
    """A gate, and how requests are told apart for it.

    Args:
        gate: a Gate.
    """

    def __init__(self, gate):
        self.acquire = gate.acquire
        self.look = gate.look
        self.key_of = gate.key_of
        self.weight_of = gate.weight_of

    cdef object key(self, PolicedCoroutine asked):
        return asked.request_key if self.key_of is None else self.key_of(asked.seen_request())


@cython.final
cdef class Plan:
    """What Policies do for each request, looked up once; called as they are.

    Args:
        policies: the Policies.
        policies_class: their class.
        ended: the context variable that is set where a session may try a second time.
        new_seen: makes an Observation.
        tally_of: returns what is counted of a key.
        is_copiable: whether a request can be hedged.
        good: by outcome, whether its latency is learned.
        of_url: makes a key of a request's origin alone; asked once for those of one that follow each other.
    """

    def __init__(
        self, policies, policies_class, ended, new_seen, tally_of, is_copiable, tuple good not None, of_url
    ):
        retry, budget = policies.retry, policies.budget
        self.policies = policies
        # Of a subclass not all is known.
        self.is_whole = type(policies) is policies_class
        self.ended = ended
        self.clock = policies._clock
        self.key_of = policies._key
        self.deposit = None if budget is None else budget.deposit
        self.gates = tuple([Gateway(gate) for gate in policies._gates])
        self.lookers = tuple([Gateway(gate) for gate in policies._lookers])
        self.of_response = policies._classifier.of_response
        self.new_seen = new_seen
        self.tally_of = tally_of
        self.is_retryable = None if retry is None else retry.is_retryable
        self.hedge = policies.hedge
        self.is_copiable = is_copiable
        self.good = good
        self.is_by_url = policies._key is of_url
        self.is_by_request = not self.is_by_url or any(
            [gate.key_of is not None or gate.weight_of is not None for gate in policies._gates]
        )

    def __call__(self, request, handler):
        cdef PolicedCoroutine asked = PolicedCoroutine.__new__(PolicedCoroutine)
        asked.plan = self
        asked.request = request
        asked.handler = handler
        return asked

    cdef bint takes(self, Hop hop) except -1:
        """Whether nothing has to be known of a request but URL and method, as long as all goes well."""
        cdef dict options = hop.options
        return (
            self.is_whole and not self.is_by_request
            and not ("headers" in options or "json" in options or "data" in options)
            and "Upgrade" not in hop.lane.default_headers
        )

    cdef object ask(self, Hop hop):
        """Return the coroutine of a request that is made when somebody wants to see it."""
        cdef PolicedCoroutine asked = PolicedCoroutine.__new__(PolicedCoroutine)
        asked.plan = self
        asked.hop = asked.handler = hop
        return asked

    cdef object key(self, PolicedCoroutine asked):
        """What a request is told apart by."""
        if not self.is_by_url:
            return self.key_of(asked.seen_request())
        # A connection key is one origin's: other URLs of it need not be made.
        at = asked.request.url if asked.hop is None else asked.hop.prepared.key
        if at is not self.at:
            self.url_key = self.key_of(asked)
            self.at = at
        return self.url_key

    cdef Late late(self, PolicedCoroutine asked, double delay):
        """Set the time after which a request is hedged."""
        cdef Late late = Late.__new__(Late)
        loop = _running_loop()
        if loop is not self.loop:
            self.deadlines = Deadlines(loop)
            self.loop = loop
        late.asked = asked
        if delay > 0:
            self.deadlines.set(late, self.deadlines.time() + delay)
        else:
            loop.call_soon(late.pass_now)
        return late


@cython.final
cdef class Late(Deadline):
    def pass_now(self):
        """The time is over."""
        asked, self.asked = self.asked, None
        if asked is not None:
            (<PolicedCoroutine> asked)._on_late()

    cdef int _on_deadline(self, double now) except -1:
        self.pass_now()
        return 0

    cdef int stop(self) except -1:
        self._unlink()
        self.asked = None
        return 0


# A request


@cython.final
cdef class PolicedCoroutine(NativeCoroutine):
    # Request out

    cdef object _begin(self):
        cdef Plan plan = self.plan
        if get_value(plan.ended) is not None:
            return self._hand_over(plan.policies._perform(self.seen_request(), self.handler))
        self.request_key = plan.key(self)
        now = plan.clock()
        if plan.deposit is not None:
            plan.deposit(self.request_key, now)
        self.permits = []
        self.delay = -1
        try:
            permit = self._pass(now)
            if permit is None:
                self.is_sent = True
                if plan.hedge is not None:
                    self._hedge(now)
                if self.delay >= 0:
                    self.task = _current_task()
                    self.late_at = plan.late(self, self.delay)
                awaitable = self.handler(self.request)  # None: that of the hop
        except BaseException as exc:
            return self._give_up(exc)
        if permit is None:
            return self.delegate(as_coroutine(awaitable))
        attempt = self._view()
        attempt.waits_for = permit
        return self._hand_over(plan.policies._go_on(attempt, self.handler))

    cdef object _pass(self, object now):
        """Pass the gates; returns the permit that is to be waited for, or None."""
        cdef Gateway gate
        for gate in self.plan.lookers:
            gate.look(gate.key(self), now)
        for gate in self.plan.gates:
            weight = 1.0 if gate.weight_of is None else gate.weight_of(self.seen_request())
            permit = gate.acquire(gate.key(self), weight=weight, now=now, wake=self)
            self.permits.append(permit)
            if permit.ready_at > now:
                return permit
        self.sent_at = now
        return None

    def __call__(self, permit):
        """A permit that was queued holds."""
        if self.attempt is not None:
            self.attempt.wake(permit)

    cdef object _hedge(self, object now):
        """Find out whether, and when, a second attempt is to be made."""
        if self.hop is not None or self.plan.is_copiable(self.request):
            method = self.request.method if self.hop is None else self.hop.prepared.method
            delay = self.plan.hedge.delay(self.request_key, method, now)
            self.is_learning = True
            if delay is not None:
                self.delay = delay

    cdef int _on_late(self) except -1:
        try:
            self._view()
            self.raced = self.plan.policies._new_race(self.attempt, self.handler, self.delay)
            self.raced.enter(self.task)
            self.raced.on_time()
        except Exception as exc:
            self.plan.loop.call_exception_handler(
                {"message": "A request could not be hedged", "exception": exc}
            )
        return 0

    # The request

    @property
    def url(self):
        """Of the request."""
        return self.request.url if self.hop is None else self.hop.prepared.real_url

    cdef object seen_request(self):
        """The request, for those who look at it."""
        if self.request is None:
            self.request = self.hop.req = self.hop.template.new_request(self.hop)
        return self.request

    # What came of it

    cdef object _on_inner_done(self, object resp):
        return resp if self.is_handed_over else self._answer(resp)

    cdef object _on_inner_failed(self, object exc):
        if self.is_handed_over:
            raise exc
        return self._give_up(exc)

    cdef object _answer(self, object resp):
        cdef Plan plan = self.plan
        try:
            self._note(resp)
            if self.raced is None:
                if self.is_learning and plan.good[self.seen.outcome]:
                    plan.hedge.record(self.request_key, self.seen.latency, self.seen.at)
                if plan.is_retryable is None or not plan.is_retryable(self.seen):
                    if plan.is_retryable is not None and not hasattr(type(resp), "retry_history"):
                        resp.retry_history = ()
                    if self.attempt is not None:
                        self.attempt.seen = None  # it knows the response, which may be dropped
                    return resp
        except BaseException as exc:
            resp.close()
            return self._give_up(exc)
        return self._hand_over(
            plan.policies._take_over(self._view(), self.handler, resp, None, self.raced)
        )

    cdef int _note(self, object resp) except -1:
        """Tell all policies what the answer is."""
        cdef Plan plan = self.plan
        if self.late_at is not None:
            self.late_at.stop()
            self.late_at = None
        at = plan.clock()
        outcome = plan.of_response(resp)
        self.seen = plan.new_seen(outcome, at - self.sent_at, at, resp.status, resp)
        for permit in self.permits:
            permit.observe(self.seen)
        plan.tally_of(self.request_key, at).counts[outcome] += 1
        if self.permits:
            self._leave_gates(resp)
        return 0

    cdef int _leave_gates(self, object resp) except -1:
        """Give back what was granted, once the connection of the response is free."""
        connection = resp.connection
        if connection is not None or self.attempt is not None:
            attempt = self._view()
            if connection is None:
                attempt.release(self.seen.at)
            else:
                connection.add_callback(attempt.end)
            return 0
        permits, self.permits = self.permits, []
        at = self.seen.at
        for i in range(len(permits)):
            try:
                permits[i].release(at)
            except BaseException:
                self.permits = permits[i + 1:]
                raise
        return 0

    cdef object _give_up(self, object exc):
        """Leave it to Python what an attempt comes to that has failed."""
        cdef Plan plan = self.plan
        if self.late_at is not None:
            self.late_at.stop()
            self.late_at = None
        return self._hand_over(
            plan.policies._take_over(self._view(), self.handler, None, exc, self.raced)
        )

    # To Python

    cdef object _hand_over(self, object coroutine):
        self.is_handed_over = True
        return self.delegate(coroutine)

    cdef object _view(self):
        """What Python sees of the attempt; the permits are given back by it."""
        if self.attempt is None:
            self.attempt = self.plan.policies._taken_over(
                self.seen_request(), self.request_key, self.permits, self.sent_at if self.is_sent else None
            )
        self.attempt.seen = self.seen
        return self.attempt

    cdef int _end(self) except -1:
        NativeCoroutine._end(self)
        if self.late_at is not None:
            self.late_at.stop()
            self.late_at = None
        self.attempt = self.raced = self.seen = self.task = self.permits = self.handler = self.hop = None
        return 0

    cdef str _name(self):
        return "Policies.__call__"
