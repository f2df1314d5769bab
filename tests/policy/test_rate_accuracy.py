"""How near to the rate it comes: within 1 % over ten seconds, simulated and in real time, with any clock."""

import asyncio
import heapq
import random
import time

import pytest

from wirespeed.policy.outcome import Observation, Outcome
from wirespeed.policy.pacing import Algorithm
from wirespeed.policy.rate import FixedWindow, LeakyBucket, RateLimit, SlidingWindow, TokenBucket

from .conftest import LONG

SEEN = Observation(Outcome.SUCCESS, 0.01, 0.0, 200)
SECONDS = 10.0 if LONG else 2.0
RATES = [1_000, 20_000]


def algorithms(rate: int) -> list[Algorithm]:
    return [
        TokenBucket(rate),
        TokenBucket(rate, burst=rate / 1000),
        LeakyBucket(rate),
        FixedWindow(rate / 100, 0.01),
        SlidingWindow(rate / 100, 0.01),
    ]


CASES = [(rate, algorithm) for rate in RATES for algorithm in algorithms(rate)]


def simulate(gate: RateLimit, start: float, seconds: float, workers: int) -> int:
    """Workers that ask, wait, work for about 5 ms and ask again; how many attempts were sent in that time."""
    dice = random.Random(1)
    sent = 0
    end = start + seconds
    # Instant, kind and permit: with one the worker sends at that instant, without it asks.
    agenda: list[tuple[float, int, object]] = [(start, worker, None) for worker in range(workers)]
    heapq.heapify(agenda)
    while agenda[0][0] < end:
        now, worker, permit = heapq.heappop(agenda)
        if permit is None:
            permit = gate.acquire("k", now=now)
            if permit.ready_at > now:
                heapq.heappush(agenda, (permit.ready_at, worker, permit))
                continue
        sent += 1
        permit.observe(SEEN)
        permit.release(now)
        heapq.heappush(agenda, (now + dice.expovariate(200), worker, None))
    return sent


@pytest.mark.parametrize("start", [0.0, 1e9])
@pytest.mark.parametrize(("rate", "algorithm"), CASES, ids=repr)
def test_ten_simulated_seconds_are_within_one_percent(rate, algorithm, start):
    seconds = 10.0 if LONG or rate <= 1000 else 2.0
    # Little's law: 5 ms of work each at the rate, and as many again that wait.
    sent = simulate(RateLimit(algorithm), start, seconds, workers=rate // 100)
    assert sent == pytest.approx(rate * seconds, rel=0.01)


class Placed:
    before = None


@pytest.mark.parametrize("rate", [7, 20_000, 1_000_003])
def test_a_million_reservations_do_not_drift_with_a_large_clock(rate):
    for algorithm in (TokenBucket(rate), LeakyBucket(rate), FixedWindow(1, 1 / rate)):
        line = algorithm.line()
        placed = Placed()
        instant = 1e9
        for _ in range(1_000_001):
            instant = line.place(placed, 1.0, instant)
        assert instant - 1e9 == pytest.approx(1_000_000 / rate, abs=3e-7)


def test_sliding_window_drifts_by_less_than_its_clock_can_tell():
    line = SlidingWindow(100, 0.01).line()
    placed = Placed()
    instant = 1e9
    for _ in range(1_000_100):
        instant = line.place(placed, 1.0, instant)
    # Each window is rounded to what a float holds of 1e9: a tenth of a microsecond of ten milliseconds.
    assert instant - 1e9 == pytest.approx(100.0, rel=2e-5)


def test_a_million_fractions_sum_up():
    line = TokenBucket(1000).line()
    placed = Placed()
    for _ in range(1_000_001):
        instant = line.place(placed, 0.1, 1000.0)
    assert instant - 1000.0 == pytest.approx(99.99, abs=0.02)


async def drive(gate: RateLimit, workers: int, seconds: float) -> list[float]:
    """Workers that sleep until their instant; when each attempt was sent."""
    clock = gate.clock
    sent: list[float] = []
    end = clock() + seconds

    async def work() -> None:
        while True:
            permit = gate.acquire("k")
            while (delay := permit.ready_at - clock()) > 0:  # noqa: ASYNC110 - time is all it waits for
                await asyncio.sleep(delay)
            now = clock()
            if now >= end:
                permit.release(now)
                return
            sent.append(now)
            permit.observe(SEEN)
            permit.release(now)

    await asyncio.gather(*(work() for _ in range(workers)))
    return sent


# Enough workers that reservations reach 50 ms ahead: what a timer is late by then costs nothing.
@pytest.mark.parametrize("rate", RATES)
async def test_real_seconds_are_within_one_percent(rate):
    error = 1.0
    for _ in range(3):  # a machine that has other things to do may be late once
        start = time.monotonic()
        sent = await drive(RateLimit(rate), rate // 20, SECONDS)
        error = len(sent) / (rate * SECONDS) - 1
        assert max(sent) - start < SECONDS + 0.2
        assert error < 0.01  # above the rate there is no excuse for
        if error > -0.01:
            break
    assert abs(error) < 0.01
