"""Write into the bundled judges how the latents of the toy world's clips are spread.

    python -m tools.toy.spread

Trainers measure this on their training clips. The bundled judges were trained before they did:
these are the first clips of the study's, 128 clean ones and 128 with random faults.
"""

from dataclasses import replace

import torch

from gtsvj_reward.assets import asset_path
from gtsvj_reward.assets.vae import load_vae
from gtsvj_reward.files import write_text
from gtsvj_reward.judge.checkpoint import CONFIG_FILE, read_config
from gtsvj_reward.latents import LatentSpace
from gtsvj_reward.latents.statistics import LatentStatistics
from gtsvj_reward.toy.corpus import ClipSpec, encode_frames, random_specs
from studies.data import SEEN
from tools.toy.bundle import seal

JUDGES = ("gtsvj-toy", "gtsvj-toy-lora", "gtsvj-toy-aspects", "gtsvj-toy-discriminator")
COUNT = 128


def measured() -> LatentStatistics:
    """The statistics of the clips."""
    vae = load_vae("gtsvj-toy-pipeline")
    specs = [ClipSpec(f"real-{index:05d}", (11, index), {}) for index in range(COUNT)]
    specs += random_specs("rated", 13, COUNT, SEEN)
    clips = []
    for start in range(0, len(specs), 16):
        frames = torch.stack([spec.draw() for spec in specs[start : start + 16]])
        clips += list(encode_frames(frames, vae, LatentSpace.from_vae(vae)))
    found = LatentStatistics.of(clips)
    if found is None:
        raise RuntimeError("too few clips to measure")
    return found


def main() -> None:
    """Measure once, and write it into each judge."""
    statistics = measured()
    for name in JUDGES:
        folder = asset_path(name)
        config = replace(read_config(folder), latent_statistics=statistics)
        write_text(folder / CONFIG_FILE, config.to_json())
        seal(folder)


if __name__ == "__main__":
    main()
