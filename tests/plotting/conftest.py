"""What the tests of plots share."""

import numpy as np
import pytest

from gtsvj_reward.plotting import alignment, calibration, film, stages, training, trajectory


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved in the test, in order."""
    seen = []
    for module in (alignment, calibration, film, stages, training, trajectory):

        def save_and_keep(figure, path, save=module.save):
            seen.append(figure)
            return save(figure, path)

        monkeypatch.setattr(module, "save", save_and_keep)
    return seen


def clip(frames, height=12, width=18):
    """Frame f is a flat grey of value f."""
    values = np.arange(frames, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(values, (frames, height, width, 3)).copy()


@pytest.fixture
def make_clip():
    """The function `clip`."""
    return clip
