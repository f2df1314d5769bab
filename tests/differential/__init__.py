"""The same request through aiohttp and through wirespeed gives the same bytes and outcome."""
