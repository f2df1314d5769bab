"""A job on many processes or machines: `fetch` over any `concurrent.futures.Executor`, Dask's among them."""

from .api import fetch, run

__all__ = ["fetch", "run"]
