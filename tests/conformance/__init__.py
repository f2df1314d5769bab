"""aiohttp's own tests, run on wirespeed: `python tests/conformance --help`.

Nothing here is collected by the ordinary test run, and no code of aiohttp is kept: its
tests come from the source archive on the package index.
"""
