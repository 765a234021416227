"""Fixtures of these tests."""

import pytest
import torch

from tests.serving.server import reward_of, serving
from tests.tiny import tiny_space


@pytest.fixture(scope="module")
def reward():
    return reward_of()


@pytest.fixture(scope="module")
def port(reward):
    """A server with the default limits, for tests that do not change it."""
    with serving(reward) as (_, number):
        yield number


@pytest.fixture
def offline(reward):
    """Scores without a server."""

    def scores(latents, **options):
        with torch.no_grad():
            return reward(latents, space=tiny_space(), **options)

    return scores
