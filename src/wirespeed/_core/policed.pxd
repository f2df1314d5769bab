"""A request under policies: what of it goes well is driven here, the rest is left to Python."""

from wirespeed._core.coroutine cimport NativeCoroutine
from wirespeed._core.deadlines cimport Deadline, Deadlines
from wirespeed._core.hop cimport Hop


cdef class Gateway:
    """A gate, and how requests are told apart for it."""
    cdef object acquire, look           # its methods
    cdef object key_of, weight_of       # or None

    cdef object key(self, PolicedCoroutine asked)


cdef class Plan:
    """What Policies do for each request, looked up once."""
    cdef object policies
    cdef object ended                   # the context variable of second tries
    cdef object clock
    cdef object key_of
    cdef object deposit                 # of the budget, or None
    cdef tuple gates                    # Gateways, in order
    cdef tuple lookers                  # those that may know that there is no chance
    cdef object of_response             # of the classifier
    cdef object new_seen                # makes an Observation
    cdef object tally_of                # of what is counted by key
    cdef object is_retryable            # of the retry policy, or None
    cdef object hedge                   # or None
    cdef object is_copiable             # whether a request can be hedged
    cdef tuple good                     # by outcome, whether its latency is learned
    cdef bint is_by_url                 # the key is made of nothing else
    cdef object at, url_key             # the last one: what it was made for, and it
    cdef bint is_by_request             # keys or weights are made of more
    cdef bint is_whole                  # the policies do nothing but what is known here
    cdef Deadlines deadlines            # on `loop`
    cdef object loop

    cdef bint takes(self, Hop hop) except -1
    cdef object ask(self, Hop hop)
    cdef object key(self, PolicedCoroutine asked)
    cdef Late late(self, PolicedCoroutine asked, double delay)


cdef class Late(Deadline):
    """The time after which a request is hedged."""
    cdef PolicedCoroutine asked         # None once it does not matter any more

    cdef int stop(self) except -1


cdef class PolicedCoroutine(NativeCoroutine):
    """What Policies return for a request."""
    cdef Plan plan
    cdef object request                 # or None, before somebody wants to see that of `hop`
    cdef object handler
    cdef Hop hop                        # a request of ours, or None
    cdef object request_key
    cdef list permits                   # that were granted
    cdef bint is_sent
    cdef double sent_at                 # on the policies' clock
    cdef bint is_learning               # of latencies, for the hedge
    cdef double delay                   # after which it is hedged; below 0: never
    cdef Late late_at                   # or None
    cdef object task                    # whose step is taken, where it may be hedged
    cdef object attempt                 # Python's view of it, once there is one
    cdef object raced                   # the race, once there is one
    cdef object seen                    # the Observation, or None
    cdef bint is_handed_over            # Python goes on

    cdef object seen_request(self)
    cdef object _pass(self, object now)
    cdef object _hedge(self, object now)
    cdef object _hand_over(self, object coroutine)
    cdef object _view(self)
    cdef int _on_late(self) except -1
    cdef object _give_up(self, object exc)
    cdef object _answer(self, object resp)
    cdef int _note(self, object resp) except -1
    cdef int _leave_gates(self, object resp) except -1
