"""What the tests of losses share."""

import jaxtyping
import pytest


@pytest.fixture
def unchecked():
    """Without the shape checks of the test run, as a user runs the package."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
