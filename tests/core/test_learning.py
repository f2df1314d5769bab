"""Learning for how long a server keeps idle connections."""

import pytest

from wirespeed._core.learning import KeepAliveLearner

from .fakes import PoolFixture, new_settings, transport_of

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

FORGOTTEN_AFTER = 600


def taught(*ages: float, start: float = 1000.0, apart: float = 10.0) -> KeepAliveLearner:
    learner = KeepAliveLearner()
    for i, age in enumerate(ages):
        learner.note(age, start + i * apart)
    return learner


@pytest.mark.parametrize("ages", [(), (5.0,), (5.0, 5.0)])
def test_too_few_ends_say_nothing(ages: tuple[float, ...]) -> None:
    assert taught(*ages).limit_at(1100) is None


def test_three_ends_at_the_same_age_are_believed_less_a_margin() -> None:
    assert taught(5.0, 5.0, 5.0).limit_at(1100) == 4.0


def test_short_ages_have_a_margin_of_a_quarter() -> None:
    assert taught(0.4, 0.4, 0.4).limit_at(1100) == pytest.approx(0.3)


def test_lowest_of_the_ages_that_agree_counts() -> None:
    assert taught(5.3, 5.0, 5.2).limit_at(1100) == 4.0


@pytest.mark.parametrize("ages", [(5.0, 9.0, 5.0), (1.0, 5.0, 5.0), (5.0, 5.0, 2.0), (60.0, 30.0, 15.0)])
def test_ages_that_do_not_agree_say_nothing(ages: tuple[float, ...]) -> None:
    assert taught(*ages).limit_at(1100) is None


def test_ends_at_the_same_moment_have_one_cause() -> None:
    """A server that restarts ends all connections at once: those that were idle alike, too."""
    learner = KeepAliveLearner()
    for i in range(20):
        learner.note(5.0, 1000 + i * 0.01)
    assert learner.limit_at(1001) is None
    learner.note(5.0, 1010)
    learner.note(5.0, 1020)
    assert learner.limit_at(1020) == 4.0


def test_a_restart_does_not_disturb_what_is_being_learned() -> None:
    learner = taught(5.0, 5.0)
    learner.note(5.0, 1030)
    for age in (0.1, 1.0, 2.0, 3.0):
        learner.note(age, 1030.5)
    assert learner.limit_at(1031) == 4.0


def test_a_server_with_another_limit_is_learned_anew() -> None:
    learner = taught(60.0, 60.0, 60.0)
    assert learner.limit_at(1030) == 59.0
    for i in range(3):
        learner.note(10.0, 1100 + 10 * i)
    assert learner.limit_at(1130) == 9.0


def test_what_was_learned_is_forgotten_and_one_end_confirms_it() -> None:
    learner = taught(5.0, 5.0, 5.0)
    learned_at = 1020
    assert learner.limit_at(learned_at + FORGOTTEN_AFTER) == 4.0
    assert learner.limit_at(learned_at + FORGOTTEN_AFTER + 1) is None
    assert learner.limit_at(learned_at + FORGOTTEN_AFTER + 2) is None
    learner.note(5.0, learned_at + FORGOTTEN_AFTER + 10)
    assert learner.limit_at(learned_at + FORGOTTEN_AFTER + 11) == 4.0


def test_a_server_that_ends_connections_at_once_leaves_nothing_to_keep() -> None:
    assert taught(0.0, 0.0, 0.0).limit_at(1100) == 0


def test_connections_that_were_idle_for_longer_and_served_speak_against_it() -> None:
    learner = taught(0.02, 0.02)
    for _ in range(2):
        learner.use(0.03)
    learner.note(0.02, 1100)
    assert learner.limit_at(1100) is None


def test_connections_that_were_idle_for_less_say_nothing() -> None:
    learner = taught(5.0, 5.0)
    for _ in range(100):
        learner.use(4.9)
    learner.note(5.0, 1100)
    assert learner.limit_at(1100) == 4.0


def test_what_was_learned_is_given_up_when_a_connection_outlives_it() -> None:
    learner = taught(*[5.0] * 100)
    assert learner.limit_at(2000) == 4.0
    learner.use(30.0)
    assert learner.limit_at(2000) is None


def test_busy_origin_whose_backends_are_restarted_keeps_its_connections() -> None:
    """All that ends was idle for a moment; so was all that went on to serve."""
    fixture = PoolFixture()
    conn = fixture.idle()
    host = conn.host
    for _ in range(5):
        for pause in (0.02, 0.03) * 25:
            fixture.loop.advance(pause)
            assert fixture.pool.take(host) is conn
            conn.send(b"request", new_settings())
            transport_of(conn).feed(OK)
        fixture.loop.advance(0.02)
        transport_of(conn).lose(ConnectionResetError())
        conn = fixture.idle()
        host = conn.host
    assert host.snapshot(fixture.pool.now())["learned_keepalive"] is None
