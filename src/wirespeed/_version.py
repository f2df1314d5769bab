"""The version, which pyproject.toml repeats and a test compares."""

__version__ = "0.1.0"
