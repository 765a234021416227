"""Fixtures of these tests."""

import pytest

from gtsvj_reward.alignment import Policy
from tests.alignment.tiny import SIZE, tiny_pipeline


@pytest.fixture
def policy():
    return Policy(tiny_pipeline(), SIZE, guidance=3.0, rank=2)
