"""Fixtures of these tests."""

import sys

import pytest

from tests.examples.scripts import EXAMPLES


@pytest.fixture(scope="session", autouse=True)
def examples_path():
    sys.path.insert(0, str(EXAMPLES))
    yield EXAMPLES
    sys.path.remove(str(EXAMPLES))
