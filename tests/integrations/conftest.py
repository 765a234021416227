"""What adapters load: a judge with aspects, its VAE, and the VAE of another space, on disk."""

from types import SimpleNamespace

import pytest
import torch

from gtsvj_reward import GTSVJReward, LatentSpace
from gtsvj_reward.assets.vae import load_vae
from tests.conftest import tiny_aspect_judge, tiny_transformer

ROUNDING = 5e-5
"""How far a score may move with the shape of the batch that it is computed in."""


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


def videos(batch=2, time=9, seed=0):
    """Noise with colours in [0, 1], (batch, time, 3, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, time, 3, 64, 96, generator=generator)
