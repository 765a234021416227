"""Fixtures of these tests."""

from types import SimpleNamespace

import pytest
import torch

from gtsvj_reward import GTSVJReward, LatentSpace
from gtsvj_reward.assets.vae import load_vae
from tests.tiny import tiny_aspect_judge, tiny_transformer


@pytest.fixture(scope="session")
def saved(tmp_path_factory, tiny_vae):
    """Folders, as strings: what a host's configuration holds."""
    folder = tmp_path_factory.mktemp("saved")
    tiny_transformer().save_pretrained(folder / "base")
    tiny_vae.save_pretrained(folder / "vae")
    torch.manual_seed(1)
    type(tiny_vae).from_config(tiny_vae.config).save_pretrained(folder / "foreign")
    space = LatentSpace.from_vae(tiny_vae)
    judge = tiny_aspect_judge(base_model=str(folder / "base"), latent_space=space)
    GTSVJReward(judge).save_pretrained(folder / "judge")
    names = ("judge", "vae", "foreign")
    return SimpleNamespace(**{name: str(folder / name) for name in names}, space=space)


@pytest.fixture
def judge(saved):
    """The judge, loaded anew: called directly, it says what adapters must."""
    return GTSVJReward.from_pretrained(saved.judge)


@pytest.fixture
def vae(saved):
    """Its VAE, as adapters load it."""
    return load_vae(saved.vae)
