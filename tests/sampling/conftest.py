"""Fixtures of these tests."""

import pytest

from tests.sampling.tiny import PIPES


@pytest.fixture(params=PIPES)
def pipe(request):
    """Each kind of pipeline in turn."""
    return PIPES[request.param]()
