"""Pipelines by their VAE, against the real classes of diffusers."""

import inspect

import diffusers
import pytest
import torch

from gtsvj_reward.latents import LatentSpace, LatentSpaceError
from gtsvj_reward.latents.generators import GENERATORS, generators_of, vae_class_of
from gtsvj_reward.latents.vaes import VAE_FAMILIES
from tests.latents.tiny import params
from tests.tiny import tiny_space

PUBLISHED = [
    (vae, name, config)
    for vae, family in VAE_FAMILIES.items()
    for name, config in family.published.items()
]


@pytest.mark.parametrize("generator", GENERATORS, ids=[g.pipeline for g in GENERATORS])
def test_a_pipeline_has_a_vae_of_that_class(generator):
    kind = getattr(diffusers, generator.pipeline, None)
    if kind is None:
        pytest.skip("this diffusers does not have it")
    annotation = inspect.signature(kind.__init__).parameters["vae"].annotation
    assert generator.vae in str(annotation)


def test_no_pipeline_stands_twice():
    assert len({generator.pipeline for generator in GENERATORS}) == len(GENERATORS)


@pytest.mark.parametrize(("vae", "name", "config"), PUBLISHED, ids=[row[1] for row in PUBLISHED])
def test_a_published_vae_is_recognised_from_its_config(vae, name, config):
    if not hasattr(diffusers, vae) or (vae == "AutoencoderKLWan" and "2.2" in name):
        pytest.importorskip("diffusers", minversion="0.36", reason="Wan VAEs need 0.36")
    fields = inspect.signature(getattr(diffusers, vae).__init__).parameters
    with torch.device("meta"):
        more = {"scale_factor_spatial": 16} if name == "wan-2.2-5b" else {}
        given = {key: value for key, value in config.items() if key in fields}
        found = getattr(diffusers, vae)(**given, **more)
    space = LatentSpace.from_vae(found)
    assert space.id == name
    assert vae_class_of(space) == vae
    assert {generator.vae for generator in generators_of(space)} == {vae}


@pytest.mark.parametrize("family", params())
def test_a_vae_known_by_its_weights_is_of_its_class_too(family):
    assert vae_class_of(LatentSpace.from_vae(family.make())) == family.of


def test_a_padded_space_and_one_built_by_hand():
    with torch.device("meta"):
        vae = diffusers.AutoencoderKLCogVideoX(scaling_factor=0.7)
    space = LatentSpace.from_vae(vae, patch_size_t=2)
    assert space.id == "cogvideox-1.5"
    assert vae_class_of(space) == "AutoencoderKLCogVideoX"
    assert generators_of(tiny_space()) == []


@pytest.mark.parametrize("name", ["AutoencoderKLHunyuanVideo15", "AutoencoderKLLTX2Video"])
def test_other_vaes_are_refused_by_name(name):
    kind = getattr(diffusers, name, None)
    if kind is None:
        pytest.skip("this diffusers does not have it")
    with torch.device("meta"):
        vae = kind()
    with pytest.raises(LatentSpaceError, match=f"got `{name}`"):
        LatentSpace.from_vae(vae)
