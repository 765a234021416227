"""A working folder for a recipe: tiny videos and labels, as the data sets have them on disk."""

import torch

from gtsvj_reward.latents import write_video
from tests.annotations.rows import (
    BENCHMARK_ROWS,
    answer_row,
    rating_row,
    ratings_schema,
    vote_row,
    write_csv,
    write_parquet,
)

ANSWERS = ("video1", "video2", "tie", "video1")
VOTES = ("leftvote", "rightvote", "bothbad_vote")
OWN = {"real": 4, "real-held-out": 2, "generated": 3, "generated-held-out": 2}


def write_videos(folder, names):
    """Squares that move, 17 frames of 32x48 at 8 fps; no two videos are the same."""
    for name in names:
        seed = sum(ord(letter) * (place + 1) for place, letter in enumerate(str(folder / name)))
        generator = torch.Generator().manual_seed(seed)
        clip = torch.randint(0, 256, (1, 32, 48, 3), generator=generator).repeat(17, 1, 1, 1)
        for time, frame in enumerate(clip):
            left = (2 * time + seed) % 40
            frame[10:18, left : left + 8] = 220
        write_video(folder / name, clip.to(torch.uint8), 8.0)


def names_in(rows, *columns):
    """Names of videos in the rows, without the folders that a recipe does not keep."""
    paths = [row[column].removeprefix("https://host/") for row in rows for column in columns]
    return [path.removeprefix("v/") for path in paths]


def write_data(work):
    """Everything that a recipe expects to be downloaded; returns set -> number of videos."""
    videos, labels = work / "videos", work / "labels"
    rated = [rating_row(n, clear=1 + n % 5, focus=1 + n % 3) for n in range(6)]
    compared = [answer_row(n, answer) for n, answer in enumerate(ANSWERS)]
    votes = [vote_row(n, vote) for n, vote in enumerate(VOTES)]
    visionreward, name = labels / "VisionRewardDB-Video", "{}-00000-of-00001.parquet"
    write_parquet(visionreward / "train" / name.format("train"), rated, ratings_schema())
    write_parquet(visionreward / "regression" / name.format("regression"), compared)
    write_parquet(visionreward / "test" / name.format("test"), compared)
    write_parquet(labels / "GenAI-Bench" / "video_generation" / name.format("test"), votes)
    write_csv(labels / "VideoGen-RewardBench" / "videogen-rewardbench.csv", BENCHMARK_ROWS)
    pairs = names_in(compared, "video1_path", "video2_path")
    sets = {
        **{name: [f"{n}.mp4" for n in range(count)] for name, count in OWN.items()},
        "visionreward-train": [row["video_path"] for row in rated],
        "visionreward-regression": pairs,
        "monetbench": pairs,
        "genai-bench": names_in(votes, "left_video", "right_video"),
        "videogen-rewardbench": names_in(BENCHMARK_ROWS, "path_A", "path_B"),
        "samples": [f"{prompt}/{n}.mp4" for prompt in ("fox", "sea") for n in range(2)],
    }
    for name, files in sets.items():
        write_videos(videos / name, files)
    return {name: len(files) for name, files in sets.items()}
