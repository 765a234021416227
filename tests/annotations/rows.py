"""Annotation files as the data sets have them on disk, a few made-up rows each."""

import csv
import json

import pyarrow
from pyarrow import parquet

from gtsvj_reward.latents.store import LatentClip, LatentFolder, save_clip
from tests.tiny import clips, tiny_space

ASPECTS = (
    "alignment composition focus 'camera movement' color 'lighting accurate' 'lighting aes' "
    "'shape at beginning' 'shape throughout' 'object motion dynamic' 'camera motion dynamic' "
    "'movement smoothness' 'movement reality' clear 'image quality stability' 'camera stability' "
    "'detail refinement' letters 'physics law' 'unsafe type' safety"
)
"""As on the data card, in its order."""

BENCHMARK_ROWS = [
    {
        "path_A": "videos/kling1.5/kling1.5_00103.mp4",
        "path_B": "videos/gen3/gen3_00007.mp4",
        "A_model": "kling1.5",
        "B_model": "gen3",
        "prompt": 'A fox, "running",\nin snow',
        "VQ": "A",
        "MQ": "same",
        "TA": "B",
        "Overall": "A",
        "fps_A": "24.0",
        "num_frames_A": "121",
        "fps_B": "24.0",
        "num_frames_B": "125",
    },
    {
        "path_A": "videos/gen3/gen3_00008.mp4",
        "path_B": "videos/kling1.5/kling1.5_00104.mp4",
        "A_model": "gen3",
        "B_model": "kling1.5",
        "prompt": "雪の中の狐",
        "VQ": "invalid",
        "MQ": " b ",
        "TA": "SAME",
        "Overall": "B",
        "fps_A": "24.0",
        "num_frames_A": "121",
        "fps_B": "24.0",
        "num_frames_B": "125",
    },
]


def write_csv(path, rows):
    """Dicts to CSV, with the columns of the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path, rows, schema=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), path)
    return path


def aspect_names():
    import shlex

    return shlex.split(ASPECTS)


def ratings_schema(names=None):
    """`train` of VisionRewardDB-Video."""
    text = pyarrow.string()
    return pyarrow.schema(
        {
            "video_path": text,
            "internal_id": text,
            "prompt": text,
            "url": text,
            "annotation": pyarrow.struct(
                {name: pyarrow.int64() for name in names or aspect_names()}
            ),
            "meta_result": pyarrow.list_(pyarrow.int64()),
            "meta_mask": pyarrow.list_(pyarrow.int64()),
        }
    )


def rating_row(number, **labels):
    """A row of it; labels are 1 unless given, with underscores for spaces."""
    annotation = dict.fromkeys(aspect_names(), 1)
    annotation |= {name.replace("_", " "): label for name, label in labels.items()}
    return {
        "video_path": f"videos/{number}.mp4",
        "internal_id": f"id-{number}",
        "prompt": f"prompt {number}",
        "url": f"https://host/v/clip%20{number}.mp4?sign=1",
        "annotation": annotation,
        "meta_result": [1, 0, 1],
        "meta_mask": [1, 1, 1],
    }


def answer_row(number, answer):
    """A row of `regression` or `test` of VisionRewardDB-Video."""
    return {
        "internal_id": f"id-{number}",
        "prompt": f"prompt {number}",
        "standard_answer": answer,
        "video1_path": f"v/{number}-1.mp4",
        "video2_path": f"v/{number}-2.mp4",
    }


def vote_row(number, vote):
    """A row of GenAI-Bench `video_generation`."""
    return {
        "prompt": f"prompt {number}",
        "left_model": "ModelScope",
        "right_model": "Pika",
        "left_video": f"https://host/left/{number}.mp4",
        "right_video": f"https://host/right/{number}.mp4",
        "vote_type": vote,
    }


def latent_folder(folder, sources, file_names=None):
    """Latent files of given sources."""
    space = tiny_space()
    for index, source in enumerate(sources):
        name = file_names[index] if file_names else f"{index:03d}"
        latents = clips(1, 3, 2, 2, seed=index)[0]
        save_clip(
            folder / f"{name}.safetensors",
            LatentClip(latents=latents, space=space, fps=8.0, num_frames=9, source=source),
        )
    return LatentFolder(folder)


def write_json(path, rows):
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def fraction_row(**changes):
    """Of Rapidata: three questions, answered by shares of votes."""
    row = {"prompt": "p", "file_name1": "a/1.mp4", "file_name2": "b/1.mp4"}
    shares = {"Preference": 0.75, "Coherence": 0.5, "Alignment": 1.0}
    for question, share in shares.items():
        row |= {
            f"weighted_results1_{question}": share,
            f"weighted_results2_{question}": 1 - share,
        }
    return {**row, **changes}


def ranking_rows():
    """Two people rank x, y and z; a third one only x and z."""
    ranks = {"ann": (1, 2, 3), "ben": (2, 1, 3), "cem": (1, "", 1)}
    return [
        {"set": 7, "video": video, "rater": rater, "rank": rank, "prompt": "p", "model": video}
        for rater, found in ranks.items()
        for video, rank in zip("xyz", found, strict=True)
    ]


def write_videodpo(folder, pairs=None, seconds=2.0):
    """`pair.json`, with four videos in `metadata.json` beside it."""
    metadata = [
        {"basic": {"clip_path": f"videos/{number}.mp4", "clip_duration": seconds}}
        for number in range(4)
    ]
    write_json(folder / "metadata.json", metadata)
    known = [
        {"video1": 2, "video2": 0, "frame_caption": ["p"], "score": 0.7, "label": 0},
        {"video1": 1, "video2": 3, "frame_caption": "q", "score": 0.9, "label": 0},
    ]
    return write_json(folder / "pair.json", pairs or known)


def feedback_row(name, **changes):
    """Of VideoFeedback."""
    labels = ("visual quality", "temporal consistency", "dynamic degree")
    labels += ("text-to-video alignment", "factual consistency")
    row = {"id": name, "text prompt": "p", "video link": f"https://x.org/p/{name}.mp4"}
    return {**row, **{label: 1 + index % 4 for index, label in enumerate(labels)}, **changes}


def feedback2_row(**changes):
    """Of VideoFeedback2."""
    row = {"video_name": "000123_h", "video_url": "https://x.org/m/000123_h.mp4", "prompt": "p"}
    return {**row, "visual_score": 5, "t2v_score": 3, "phy_score": 1, "thinking": "...", **changes}
