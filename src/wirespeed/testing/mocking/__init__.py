"""The mock of `wirespeed.testing`: aiohttp's client runs for real, the network below it is played.

`request` is what the client sent, `criteria` what a route asks of it, `replies` what goes
back, `routes` and `api` what tests write. `wire` is the connection in memory, and `network`
puts it in the place of the connections that aiohttp's connectors would make.
"""
