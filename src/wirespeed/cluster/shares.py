"""The rate of a job, divided among the shards that run.

A shard keeps its share for as long as it runs, which is seconds: nothing has to reach into a running worker.
What is rebalanced is what has come back, each time a shard begins.
"""

LEAST = 1.0
"""Requests per second below which a share is not divided further: fewer shards run instead."""


class Shares:
    """A rate and who has how much of it. The shares together are never above the rate.

    Args:
        rate: requests per second; None for no limit.
        slots: shards that can run at the same time, at most.

    Attributes:
        slots: shards that may run at the same time: fewer than there could be where the rate is small.
    """

    def __init__(self, rate: float | None, slots: int) -> None:
        self.rate = rate
        self.slots = slots if rate is None else max(1, min(slots, int(rate / LEAST)))
        self._taken: dict[int, float] = {}

    @property
    def free(self) -> float:
        """What nobody has, in requests per second."""
        # Of what is taken, not counted along: a sum that is added to and taken from drifts.
        return 0.0 if self.rate is None else max(0.0, self.rate - sum(self._taken.values()))

    @property
    def is_free(self) -> bool:
        """Whether there is enough for another shard."""
        return self.rate is None or self.free >= min(LEAST, self.rate) / 2

    def next(self, claimants: int) -> float | None:
        """What the next shard would get.

        Args:
            claimants: shards that are about to begin, this one among them.

        Returns:
            Requests per second; None for no limit.
        """
        return None if self.rate is None else self.free / max(1, claimants)

    def take(self, owner: int, share: float | None) -> float | None:
        """Give a shard its share.

        Args:
            owner: the shard.
            share: what `next` has said.

        Returns:
            Requests per second; None for no limit.

        Raises:
            ValueError: it has a share, or as much is not free.
        """
        if self.rate is None:
            return None
        if owner in self._taken:
            raise ValueError(f"shard {owner} has a share already")
        if share is None or not 0 < share <= self.free:
            raise ValueError(f"of {self.rate} requests per second {self.free} are free, not {share}")
        self._taken[owner] = share
        return share

    def give_back(self, owner: int) -> None:
        """A shard has ended. Its share goes to those that begin next."""
        self._taken.pop(owner, None)

    def __len__(self) -> int:
        return len(self._taken)

    def __repr__(self) -> str:
        return f"<Shares of {self.rate}: {self._taken}>"
