"""The coroutine of one request of the express lane."""

from wirespeed._core.connection cimport Connection
from wirespeed._core.coroutine cimport NativeCoroutine
from wirespeed._core.dial cimport Dial
from wirespeed._core.exchange cimport Exchange, ExchangeSettings
from wirespeed._core.hosts cimport Host, Waiter
from wirespeed._core.lane cimport Lane, Prepared, Times
from wirespeed._core.pool cimport Pool


cdef enum Stage:
    AT_START = 0
    QUEUED                              # for a slot of the pool
    DIALLING                            # in Python
    RACING                              # a dial of our own, and connections that are freed
    SENT
    LEAVING                             # in Python, which returns what we return
    ANSWERED                            # with the exchange's own response


cdef class RequestCoroutine(NativeCoroutine):
    cdef readonly Lane lane
    cdef readonly object session
    cdef readonly object method, str_or_url
    cdef readonly dict options
    cdef readonly Prepared prepared
    cdef readonly object connector
    cdef Pool pool
    cdef object resp                    # for `async with`
    cdef bint enters                    # it is awaited by `async with`
    cdef int stage
    cdef Times times
    cdef readonly double total_at, connect_at
    cdef readonly double asked_at       # on the clock of ages
    cdef object raise_for_status
    cdef bint follows
    cdef Waiter waiter
    cdef Dial dial                      # while it is our own
    cdef Exchange exchange

    cdef object _slowly(self)
    cdef object _hook(self)
    cdef Prepared _find(self)
    cdef object _acquire(self, Host host)
    cdef object _dial(self, Host host, bint has_slot)
    cdef object _on_raced(self, Connection conn)
    cdef object _send(self, Connection conn)
    cdef object _waiter(self)
    cdef ExchangeSettings _settings(self)
    cdef object _answer(self)
    cdef object _recover(self, object exc)
    cdef object _finish(self, object resp)


cdef Lane own_lane(object session)
