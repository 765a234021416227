"""Pipelines by their VAE, against the real classes of diffusers."""

import inspect
import re
from pathlib import Path

import diffusers
import pytest
import torch
from packaging.version import Version

from gtsvj_reward.latents import LatentSpace, LatentSpaceError
from gtsvj_reward.latents.generators import GENERATORS, generators_of, vae_class_of
from gtsvj_reward.latents.vaes import VAE_FAMILIES
from tests.latents.tiny import DIFFUSERS, params
from tests.tiny import tiny_space

PUBLISHED = [
    (vae, name, config)
    for vae, family in VAE_FAMILIES.items()
    for name, config in family.published.items()
]

OTHERS = {
    *("BriaFiboPipeline", "BriaFiboEditPipeline", "Cosmos2TextToImagePipeline"),  # images
    *("JoyImageEditPipeline", "JoyImageEditPlusPipeline"),
    *("LTXLatentUpsamplePipeline", "LTX2LatentUpsamplePipeline"),  # latents to latents or frames
    *("LTX2VideoDiffusionDecodePipeline", "LTX2DFRPipeline", "LTX2DFRTemporalRefinePipeline"),
    *("SanaVideoPipeline", "SanaImageToVideoPipeline", "SanaWMPipeline"),  # one of several VAEs
}
"""Pipelines of diffusers with such a VAE that are not in the table, and why."""


def vaes_of_pipelines():
    """Pipeline -> the words of what it says its VAE is, from the source of diffusers."""
    found = {}
    for file in Path(diffusers.__file__).parent.glob("pipelines/*/pipeline_*.py"):
        parts = re.split(r"^class (\w+)\(", file.read_text(), flags=re.MULTILINE)[1:]
        for pipeline, body in zip(parts[::2], parts[1::2], strict=True):
            taken = re.search(r"^\s+vae: (.+?)(?: = .*)?,?$", body, re.MULTILINE)
            if taken and pipeline.endswith("Pipeline"):
                found[pipeline] = set(re.findall(r"\w+", taken[1]))
    return found


def test_pipelines_have_vaes_of_their_class_and_none_is_missing():
    found = vaes_of_pipelines()
    known = {generator.pipeline: generator.vae for generator in GENERATORS}
    there = known.keys() & found.keys()
    assert len(there) > 15, "the source of diffusers was not understood"
    assert {name: known[name] for name in there if known[name] not in found[name]} == {}
    if Version("0.43") > DIFFUSERS:  # later ones have other pipelines
        ours = {name for name, words in found.items() if words & set(VAE_FAMILIES)}
        assert ours - known.keys() <= OTHERS


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


def test_the_page_has_the_table():
    page = (Path(__file__).parents[2] / "docs" / "generators.md").read_text()
    rows = [[cell.strip() for cell in row.split("|")[1:4]] for row in page.splitlines()
            if row.startswith("| `Autoencoder")]  # fmt: skip
    found = {
        (pipeline, vae.strip("`"), note)
        for vae, pipelines, note in rows
        for pipeline in re.findall(r"`(\w+)`", pipelines)
    }
    assert found == {(g.pipeline, g.vae, g.note or "unchanged") for g in GENERATORS}


def test_other_vaes_are_refused_by_name():
    with torch.device("meta"):
        vae = diffusers.AutoencoderKLAllegro()
    with pytest.raises(LatentSpaceError, match="got `AutoencoderKLAllegro`"):
        LatentSpace.from_vae(vae)
