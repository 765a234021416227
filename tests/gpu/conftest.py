"""Fixtures of the training tests, for trainings on a device."""

from tests.training.conftest import base as base, world as world
