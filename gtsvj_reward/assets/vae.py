"""Loading a VAE by bundled name, folder or hub id."""

from pathlib import Path
from typing import Any

import torch

from gtsvj_reward.assets import ASSETS, folder_of
from gtsvj_reward.latents.files import is_hub_id


def load_vae(
    name: str, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Any:
    """A frozen `AutoencoderKLCogVideoX` in evaluation mode.

    Args:
        name: a bundled name, the folder of a VAE or of a pipeline with a `vae` folder inside, or a
            hub id of a pipeline.
        dtype: of the weights; the latents' values depend on it.
        device: where it goes.

    Raises:
        FileNotFoundError: if it is none of these.
    """
    from diffusers import AutoencoderKLCogVideoX

    folder = Path(folder_of(name))
    options: dict[str, Any] = {"torch_dtype": dtype, "use_safetensors": True}
    if folder.is_dir():
        inside = folder / "vae"
        vae = AutoencoderKLCogVideoX.from_pretrained(
            inside if (inside / "config.json").is_file() else folder, **options
        )
    elif is_hub_id(name):
        vae = AutoencoderKLCogVideoX.from_pretrained(name, subfolder="vae", **options)
    else:
        raise FileNotFoundError(
            f"no VAE {name!r}: not a bundled name ({', '.join(ASSETS)}), not a folder here, not a "
            "hub id (owner/name)"
        )
    return vae.requires_grad_(False).eval().to(device)
