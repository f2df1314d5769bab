"""Load: the same requests through several clients, with CPU, time and memory measured alike.

`workloads.py` says what is sent, `clients.py` and its neighbours how each client sends it,
`measure.py` runs one client on one workload, `rounds.py` several of both in processes of their
own, and `results.py` makes figures of what they say. `wirespeed bench` and the benchmark suite
measure with this package, so their figures mean the same. One measurement from a shell:

    python -m wirespeed.testing.load --client wirespeed --workload json64 --requests 40000

prints one JSON line. The clients are peers under test: they are looked up by name when they are
wanted, wirespeed among them, and nothing here imports one of them.
"""
