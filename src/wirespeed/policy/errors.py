"""What policies refuse attempts with. Nothing was sent when one of these is raised."""

from aiohttp import ClientError

from .outcome import Outcome


class PolicyError(ClientError):
    """An attempt was refused in this process, before anything was sent."""

    outcome = Outcome.LOCAL
