"""Loading a VAE by bundled name, folder or hub id."""

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from huggingface_hub import hf_hub_download

from gtsvj_reward.assets import ASSETS, folder_of
from gtsvj_reward.dtypes import weights_in
from gtsvj_reward.files import is_hub_id
from gtsvj_reward.latents.vaes import VAE_FAMILIES


def load_vae(
    name: str, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Any:
    """A frozen VAE of a known family, in evaluation mode.

    Args:
        name: a bundled name, the folder of a VAE or of a pipeline with a `vae` folder inside, or a
            hub id of a pipeline.
        dtype: of the weights; the latents' values depend on it.
        device: of the VAE.

    Raises:
        FileNotFoundError: if there is no such VAE.
        ValueError: if it is a VAE of an unknown family.
    """
    folder = Path(folder_of(name))
    options: dict[str, Any] = {**weights_in(dtype), "use_safetensors": True}
    if folder.is_dir():
        inside = folder / "vae"
        folder = inside if (inside / "config.json").is_file() else folder
        vae = vae_class(folder / "config.json").from_pretrained(folder, **options)
    elif is_hub_id(name):
        config = Path(hf_hub_download(name, "config.json", subfolder="vae"))
        vae = vae_class(config).from_pretrained(name, subfolder="vae", **options)
    else:
        raise FileNotFoundError(
            f"no VAE {name!r}: not a bundled name ({', '.join(ASSETS)}), a local folder or a "
            "hub id (owner/name)"
        )
    return vae.requires_grad_(False).eval().to(device)


def vae_class(config: Path) -> Any:
    """The diffusers class that a VAE's `config.json` names.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it names a class that is not in `VAE_FAMILIES`.
    """
    if not config.is_file():
        raise FileNotFoundError(f"no VAE in {config.parent}: {config} does not exist")
    name = json.loads(config.read_text()).get("_class_name")
    if name not in VAE_FAMILIES:
        raise ValueError(f"{config} is of {name!r}, expected one of {', '.join(VAE_FAMILIES)}")
    return getattr(diffusers, name)
