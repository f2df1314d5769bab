"""The tests of aiohttp that pass on aiohttp and not on wirespeed, each with its reason.

One by one: no patterns. A test that is listed and passes fails the run, too.
"""

KNOWN: dict[str, str] = {}
