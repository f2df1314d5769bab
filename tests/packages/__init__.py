"""Packages that patch, wrap, derive from or drive aiohttp's client, as people install them.

They come with the extra `packages`. Where one is missing its tests are skipped, except in the
step of `.ci/run` that installs them all.
"""
