"""What the tests of `wirespeed fetch` share: a server that counts, and the command."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.counting import CountingServer

from .command import Fetch


@pytest.fixture
def fetch(tmp_path: Path) -> Iterator[Fetch]:
    folder = tmp_path / "folder"
    folder.mkdir()
    command = Fetch(folder)
    yield command
    command.close()


@pytest.fixture(scope="session")
def _server() -> Iterator[CountingServer]:
    with CountingServer() as running:
        yield running


@pytest.fixture
def server(_server: CountingServer) -> CountingServer:
    """The server, which has forgotten what other tests asked."""
    _server.clear()
    return _server
