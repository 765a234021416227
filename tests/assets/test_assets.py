import json
import shutil

import pytest
import torch

from gtsvj_reward import assets
from gtsvj_reward.assets import ASSETS, asset_path
from gtsvj_reward.assets.vae import load_vae
from gtsvj_reward.latents.space import LatentSpace


@pytest.mark.parametrize("name", ASSETS)
def test_bundled_models_are_whole_and_have_a_card(name):
    folder = asset_path(name)
    titles = [f"\n# {known}\n" for known in ASSETS if ASSETS[known] == ASSETS[name]]
    card = "\n" + (folder / "README.md").read_text()
    assert any(title in card for title in titles), "a second name has the card of the first"
    hashed = json.loads((folder / "sha256.json").read_text())
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files - {"README.md", "sha256.json"} == set(hashed)
    assert any(name.endswith(".safetensors") for name in hashed)
    assert sum((folder / name).stat().st_size for name in files) < 8e6


def test_changed_files_are_refused(tmp_path, monkeypatch):
    shutil.copytree(asset_path("gtsvj-demo-codec"), tmp_path / "demo_codec")
    monkeypatch.setattr(assets, "ROOT", tmp_path)
    asset_path("gtsvj-demo-codec")
    config = tmp_path / "demo_codec" / "config.json"
    config.write_text(config.read_text().replace("16", "17", 1))
    with pytest.raises(ValueError, match=r"config.json is damaged .*install the package again"):
        asset_path("gtsvj-demo-codec")
    config.unlink()
    with pytest.raises(ValueError, match="no such file"):
        asset_path("gtsvj-demo-codec")


def test_changed_files_below_an_assets_folder_are_refused(tmp_path, monkeypatch):
    shutil.copytree(asset_path("gtsvj-toy-pipeline"), tmp_path / "toy_pipeline")
    monkeypatch.setattr(assets, "ROOT", tmp_path)
    asset_path("gtsvj-toy-pipeline")
    scheduler = tmp_path / "toy_pipeline" / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text() + " ")
    with pytest.raises(ValueError, match=r"scheduler_config.json is damaged"):
        asset_path("gtsvj-toy-pipeline")


def test_unknown_names_are_refused():
    with pytest.raises(KeyError, match="there are: gtsvj-demo"):
        asset_path("gtsvj")
    with pytest.raises(FileNotFoundError, match="not a bundled name"):
        load_vae("nowhere")


def test_the_demo_codec_reconstructs_and_scales():
    """A smooth moving pattern comes back; a codec with random weights stays below 12 dB."""
    vae = load_vae("gtsvj-demo-codec")
    space = LatentSpace.from_vae(vae)
    time, y, x = torch.meshgrid(
        torch.arange(9.0), torch.linspace(0, 3, 64), torch.linspace(0, 3, 64), indexing="ij"
    )
    pattern = torch.stack([(x + 0.1 * time).sin(), (y - 0.1 * time).cos(), (x + y).sin()], 1)
    frames = (0.5 + 0.35 * pattern)[None]
    with torch.no_grad():
        latents = space.encode(frames, vae)
        again = space.decode(latents, vae)
    assert latents.shape == (1, 3, 16, 8, 8)
    assert -10 * (again - frames).square().mean().log10() > 20
    space.check(latents)


def test_the_codecs_space_survives_half_precision():
    one, half = (
        LatentSpace.from_vae(load_vae("gtsvj-demo-codec", dtype=dtype))
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert one == half
