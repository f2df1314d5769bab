"""What each response and each exception comes to; none of aiohttp's is forgotten."""

import asyncio
import inspect
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import client_exceptions, http_exceptions
from aiohttp.client_reqrep import ConnectionKey, RequestInfo
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from wirespeed.policy import Classifier, Observation, Outcome, PolicyError
from wirespeed.policy.errors import AdaptiveLimitFull, BulkheadFull
from wirespeed.pooling import PoolFull, PoolTimeout, Pressure

from .simulated import Response

O = Outcome  # noqa: E741

INFO = RequestInfo(URL("http://a.example/"), "GET", CIMultiDictProxy(CIMultiDict()), URL("http://a.example/"))
KEY = ConnectionKey("a.example", 80, False, True, None, None, None, None)
REFUSED = OSError(111, "refused")


def answered(status: int = 0) -> Callable[[Any], BaseException]:
    return lambda cls: cls(INFO, (), status=status)


def at_origin(cause: Exception) -> Callable[[Any], BaseException]:
    return lambda cls: cls(KEY, cause)


def plain(*arguments: Any) -> Callable[[Any], BaseException]:
    return lambda cls: cls(*arguments)


URL_ERROR = plain("http://")
# Every class that aiohttp's client may raise: how it is made, and what it comes to.
CLASSES: dict[str, tuple[Callable[[Any], BaseException], Outcome]] = {
    "ClientError": (plain("?"), O.CLIENT_FAULT),
    # The server has answered.
    "ClientResponseError": (answered(500), O.SERVER_FAULT),
    "ContentTypeError": (answered(200), O.CLIENT_FAULT),
    "WSServerHandshakeError": (answered(200), O.CLIENT_FAULT),
    "TooManyRedirects": (answered(), O.CLIENT_FAULT),
    "ClientHttpProxyError": (answered(407), O.NOT_CONNECTED),
    # No connection.
    "ClientConnectorError": (at_origin(REFUSED), O.NOT_CONNECTED),
    "ClientConnectorDNSError": (at_origin(REFUSED), O.NOT_CONNECTED),
    "ClientProxyConnectionError": (at_origin(REFUSED), O.NOT_CONNECTED),
    "UnixClientConnectorError": (plain("/socket", KEY, REFUSED), O.NOT_CONNECTED),
    "ClientSSLError": (at_origin(REFUSED), O.NOT_CONNECTED),
    "ClientConnectorSSLError": (at_origin(REFUSED), O.NOT_CONNECTED),
    "ConnectionTimeoutError": (plain(), O.NOT_CONNECTED),
    # Somebody else than asked for.
    "ClientConnectorCertificateError": (at_origin(ssl.CertificateError()), O.CLIENT_FAULT),
    "ServerFingerprintMismatch": (plain(b"a", b"b", "a.example", 443), O.CLIENT_FAULT),
    # The connection was lost.
    "ClientConnectionResetError": (plain("closing transport"), O.LOST_BEFORE_SENT),
    "ClientOSError": (plain(104, "reset"), O.LOST_AFTER_SENT),
    "ServerConnectionError": (plain(), O.LOST_AFTER_SENT),
    "ServerDisconnectedError": (plain(), O.LOST_AFTER_SENT),
    "ClientPayloadError": (plain("short"), O.LOST_AFTER_SENT),
    # No answer.
    "ServerTimeoutError": (plain(), O.TIMED_OUT),
    "SocketTimeoutError": (plain(), O.TIMED_OUT),
    # Ours.
    "ClientConnectionError": (plain("Connector is closed."), O.LOCAL),
    "UploadAbortedError": (plain("The request body was not fully sent"), O.CLIENT_FAULT),
    "InvalidURL": (URL_ERROR, O.CLIENT_FAULT),
    "InvalidUrlClientError": (URL_ERROR, O.CLIENT_FAULT),
    "RedirectClientError": (URL_ERROR, O.CLIENT_FAULT),
    "NonHttpUrlClientError": (URL_ERROR, O.CLIENT_FAULT),
    "InvalidUrlRedirectClientError": (URL_ERROR, O.CLIENT_FAULT),
    "NonHttpUrlRedirectClientError": (URL_ERROR, O.CLIENT_FAULT),
    "WSMessageTypeError": (plain("?"), O.CLIENT_FAULT),
}


def test_every_exception_of_aiohttp_is_classified_on_purpose() -> None:
    found = {
        name
        for name, cls in vars(client_exceptions).items()
        if inspect.isclass(cls)
        and issubclass(cls, BaseException)
        and cls.__module__ == client_exceptions.__name__
    }
    exported = {
        name
        for name in aiohttp.__all__
        if inspect.isclass(cls := getattr(aiohttp, name)) and issubclass(cls, aiohttp.ClientError)
    }
    assert found | exported == set(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_exceptions_of_aiohttp(name: str) -> None:
    make, outcome = CLASSES[name]
    exc = make(getattr(client_exceptions, name))
    assert Classifier().of_error(exc) is outcome


@pytest.mark.parametrize("name", CLASSES)
def test_classes_of_ones_own_are_taken_for_what_they_extend(name: str) -> None:
    make, outcome = CLASSES[name]
    own = type("Own", (getattr(client_exceptions, name),), {})
    assert Classifier().of_error(make(own)) is outcome


@pytest.mark.parametrize(
    ("exc", "outcome"),
    [
        (asyncio.CancelledError(), O.CANCELLED),
        (GeneratorExit(), O.CANCELLED),
        (KeyboardInterrupt(), O.CANCELLED),
        (SystemExit(), O.CANCELLED),
        (TimeoutError(), O.TIMED_OUT),
        (asyncio.TimeoutError(), O.TIMED_OUT),
        (ConnectionResetError(104, "reset"), O.LOST_AFTER_SENT),
        (BrokenPipeError(32, "broken"), O.LOST_AFTER_SENT),
        (ssl.SSLError(1, "?"), O.LOST_AFTER_SENT),
        (OSError(5, "?"), O.LOST_AFTER_SENT),
        (ValueError("of a middleware"), O.CLIENT_FAULT),
        (RuntimeError("Session is closed"), O.CLIENT_FAULT),
        (PolicyError(), O.LOCAL),
        (BulkheadFull("a", 1, 1, 0), O.LOCAL),
        (AdaptiveLimitFull("a", 1, 1, 0), O.LOCAL),
    ],
    ids=repr,
)
def test_other_exceptions(exc: BaseException, outcome: Outcome) -> None:
    assert Classifier().of_error(exc) is outcome


def test_limits_of_our_own_pool_say_nothing_of_the_server() -> None:
    """Else a pool that is too small would open the circuits of servers that are well."""
    pressure = Pressure("limit", 1, 1, 0, 0, 1, ())
    for exc in (PoolTimeout("?", pressure, 1.0), PoolFull("?", pressure)):
        assert Classifier().of_error(exc) is O.LOCAL


@pytest.mark.parametrize(
    "cause",
    [
        http_exceptions.BadHttpMessage("?"),
        http_exceptions.BadStatusLine("?"),
        http_exceptions.LineTooLong("?"),
    ],
    ids=repr,
)
def test_what_is_no_http_is_the_servers_fault_whatever_status_it_was_given(cause: Exception) -> None:
    exc = answered(400)(aiohttp.ClientResponseError)
    exc.__cause__ = cause
    assert Classifier().of_error(exc) is O.SERVER_FAULT


def test_another_cause_of_an_answer_does_not_matter() -> None:
    exc = answered(400)(aiohttp.ClientResponseError)
    exc.__cause__ = ValueError()
    assert Classifier().of_error(exc) is O.CLIENT_FAULT


@pytest.mark.parametrize("outcome", Outcome)
def test_an_exception_may_say_itself_what_it_is(outcome: Outcome) -> None:
    class Own(aiohttp.ServerDisconnectedError):
        pass

    exc = Own()
    exc.outcome = outcome  # type: ignore[attr-defined]
    assert Classifier().of_error(exc) is outcome
    Own.outcome = outcome  # type: ignore[attr-defined]
    assert Classifier().of_error(Own()) is outcome


@pytest.mark.parametrize("told", ["SUCCESS", 0, None, True])
def test_an_attribute_of_that_name_that_is_none_of_ours_says_nothing(told: object) -> None:
    exc = aiohttp.ServerDisconnectedError()
    exc.outcome = told  # type: ignore[attr-defined]
    assert Classifier().of_error(exc) is O.LOST_AFTER_SENT


def expected(status: int) -> Outcome:
    special = {429: O.THROTTLED, 503: O.OVERLOADED}
    by_class = {4: O.CLIENT_FAULT, 5: O.SERVER_FAULT}
    return special.get(status) or by_class.get(status // 100, O.SUCCESS)


def test_every_status() -> None:
    classifier = Classifier()
    for status in range(100, 600):
        assert classifier.of_response(Response(status)) is expected(status), status


@pytest.mark.parametrize("status", [600, 999, 1000, -1])
def test_a_status_that_there_is_not_is_the_servers_fault(status: int) -> None:
    assert Classifier().of_response(Response(status)) is O.SERVER_FAULT
    assert Classifier().of_error(answered(status)(aiohttp.ClientResponseError)) is O.SERVER_FAULT


def test_an_answer_that_was_raised_is_classified_as_its_response_and_never_a_success() -> None:
    classifier = Classifier()
    for status in range(100, 600):
        exc = answered(status)(aiohttp.ClientResponseError)
        outcome = expected(status)
        assert classifier.of_error(exc) is (O.CLIENT_FAULT if outcome is O.SUCCESS else outcome), status


@given(st.dictionaries(st.integers(100, 599), st.sampled_from(Outcome)))
def test_single_statuses_may_mean_something_else(statuses: dict[int, Outcome]) -> None:
    classifier = Classifier(statuses)
    for status in range(100, 600):
        outcome = statuses.get(status, expected(status))
        assert classifier.of_response(Response(status)) is outcome
    for status, outcome in statuses.items():
        exc = answered(status)(aiohttp.ClientResponseError)
        assert classifier.of_error(exc) is (O.CLIENT_FAULT if outcome is O.SUCCESS else outcome)


def test_statuses_are_read_once() -> None:
    statuses = {420: O.THROTTLED}
    classifier = Classifier(statuses)
    statuses[421] = O.THROTTLED
    assert classifier.of_response(Response(420)) is O.THROTTLED
    assert classifier.of_response(Response(421)) is O.CLIENT_FAULT
    assert Classifier().of_response(Response(420)) is O.CLIENT_FAULT


@pytest.mark.parametrize("status", [99, 600, 0, -1])
def test_statuses_out_of_range_are_refused(status: int) -> None:
    with pytest.raises(ValueError, match=f"Expected a status between 100 and 599, got {status}"):
        Classifier({status: O.SUCCESS})


def test_what_is_no_outcome_is_refused() -> None:
    with pytest.raises(ValueError, match="77"):
        Classifier({200: 77})  # type: ignore[dict-item]


def test_a_subclass_may_look_at_headers_and_leave_the_rest() -> None:
    class Own(Classifier):
        def of_response(self, resp: Any) -> Outcome:
            return O.THROTTLED if "X-Throttled" in resp.headers else super().of_response(resp)

        def of_error(self, exc: BaseException) -> Outcome:
            return O.SERVER_FAULT if isinstance(exc, ValueError) else super().of_error(exc)

    classifier = Own()
    assert classifier.of_response(Response(200, X_Throttled="1")) is O.THROTTLED
    assert classifier.of_response(Response(200)) is O.SUCCESS
    assert classifier.of_error(ValueError()) is O.SERVER_FAULT
    assert classifier.of_error(aiohttp.ServerDisconnectedError()) is O.LOST_AFTER_SENT


FAILURES = {
    O.OVERLOADED,
    O.SERVER_FAULT,
    O.NOT_CONNECTED,
    O.LOST_BEFORE_SENT,
    O.LOST_AFTER_SENT,
    O.TIMED_OUT,
}


def test_what_outcomes_mean_to_the_policies() -> None:
    assert {outcome for outcome in Outcome if outcome.is_failure} == FAILURES
    assert {outcome for outcome in Outcome if outcome.is_pressure} == {O.THROTTLED, O.OVERLOADED, O.TIMED_OUT}
    assert {outcome for outcome in Outcome if outcome.is_unsent} == {
        O.NOT_CONNECTED,
        O.LOST_BEFORE_SENT,
        O.LOCAL,
    }
    assert {outcome for outcome in Outcome if not outcome.is_verdict} == {O.CANCELLED, O.LOCAL}


def test_an_observation_has_no_headers_without_a_response() -> None:
    seen = Observation(O.TIMED_OUT, 1.5, 20.0, error=TimeoutError())
    assert dict(seen.headers) == {}
    assert seen.status is None
    assert repr(seen) == "<Observation TIMED_OUT (TimeoutError()) after 1.500 s>"


def test_an_observation_asks_a_response_for_its_headers_late() -> None:
    class Late:
        status = 200
        asked = 0

        @property
        def headers(self) -> CIMultiDict[str]:
            self.asked += 1
            return CIMultiDict({"Retry-After": "7"})

    late = Late()
    seen = Observation(O.SUCCESS, 0.25, 20.0, late.status, late)
    assert late.asked == 0
    assert seen.headers["retry-after"] == "7"
    assert repr(seen) == "<Observation SUCCESS (200) after 0.250 s>"
    assert Observation(O.SUCCESS, 0.25, 20.0, 200, {"A": "b"}).headers == {"A": "b"}
