"""Fixtures of these tests."""

import pytest

from tests.evaluation.made_up import made_up, made_up_scores


@pytest.fixture
def comparisons():
    return made_up()


@pytest.fixture
def table(comparisons):
    return made_up_scores(comparisons)
