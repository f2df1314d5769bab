"""The same request through aiohttp and through wirespeed: the same bytes, the same outcome."""
