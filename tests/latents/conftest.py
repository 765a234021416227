"""Fixtures of these tests."""

import shutil

import pytest

from gtsvj_reward.latents import LatentSpace, write_video
from tests.latents.tiny import make_vae, moving_frames


@pytest.fixture(scope="session")
def vae():
    return make_vae()


@pytest.fixture(scope="session")
def space(vae):
    return LatentSpace.from_vae(vae)


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """Five clips in three folders, named so that careless output paths would collide."""
    folder = tmp_path_factory.mktemp("rendered")
    for seed, name in enumerate(("a/x.mp4", "b/x.mp4", "b/x.gif", "b/y.mp4", "shot")):
        write_video(folder / name, moving_frames(14, seed=seed), fps=10)
    return folder


@pytest.fixture
def videos(rendered, tmp_path):
    """The rendered clips, to be changed at will."""
    return shutil.copytree(rendered, tmp_path / "videos")
