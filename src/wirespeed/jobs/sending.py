"""Lines, sent as a batch, into a part."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import ClientTimeout, DummyCookieJar

from ..batch import Batch, Progress, Result
from ..client import ClientSession
from ..connector import TCPConnector
from ..loops import run
