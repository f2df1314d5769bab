"""The drivers of batches: a test body that has the fixture `driver` runs on each of them."""

import pytest

import wirespeed
from wirespeed.batch import api, portable

DRIVERS = ["native", "portable"] if wirespeed.NATIVE else ["portable"]
"""The core's, and the one over tasks, which is there with and without the core."""


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the driver that batches of the test have."""
    if wirespeed.NATIVE:
        assert api.Drive is not portable.Drive
    if request.param == "portable":
        monkeypatch.setattr(api, "Drive", portable.Drive)
    return request.param
