"""Fixtures; helpers that tests import are in `tests/tiny.py`."""

import os
import signal
import threading
from pathlib import Path

import jaxtyping
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from hypothesis import settings

import gtsvj_reward

# Processes that tests start import the package that is tested, not one that is installed as well.
TREE = str(Path(gtsvj_reward.__file__).parents[1])
os.environ["PYTHONPATH"] = os.pathsep.join([TREE, *filter(None, [os.environ.get("PYTHONPATH")])])

settings.register_profile("suite", max_examples=50, deadline=None)  # busy machines are slow
settings.load_profile("suite")

HANGS_AFTER = 600
"""Seconds; before, at `faulthandler_timeout`, pytest writes where all threads are."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """A test that hangs fails, and the others go on."""
    if not hasattr(signal, "alarm") or threading.current_thread() is not threading.main_thread():
        return (yield)

    def hangs(number, frame):
        raise TimeoutError(f"{item.nodeid} has not ended after {HANGS_AFTER} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(HANGS_AFTER)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def seeded():
    """Draws without a generator are the same in every run."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def threads():
    """Commands with `--threads` leave their number behind, and sums depend on it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def unchecked():
    """Without the shape checks of the test run, as a user runs the package; also much faster."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def tiny_vae():
    """A CogVideoX VAE with 8 channels everywhere, 4 in the latents."""
    torch.manual_seed(0)
    vae = AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        latent_channels=4,
        sample_height=32,
        sample_width=48,
    )
    return vae.eval().requires_grad_(False)
