"""Judges that see reference images, fitted and asked by the commands."""

import json

import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.cli import label, main
from gtsvj_reward.evaluation import read_scores
from gtsvj_reward.judge import load_judge
from gtsvj_reward.judge.inspect import describe_checkpoint
from gtsvj_reward.labelling import read_clips
from gtsvj_reward.labelling.labels import Answer, Task
from gtsvj_reward.latents.store import LatentClip, LatentFolder, load_clip, save_clip
from gtsvj_reward.reward.image_store import ImageStore, write_images
from gtsvj_reward.reward.images import ImageEncoder
from tests.labelling.tiny import moving_square
from tests.pipelines import cogvideox_image, frozen, wan_image
from tests.reward.test_image_store import write_shown
from tests.training.stages import write_csv

FIT = ["--held_out_fraction", "0.25", "--device", "cpu"]
ASK = ["--device", "cpu", "--no_check_statistics"]


@pytest.fixture(scope="module")
def pipe():
    return frozen(cogvideox_image)


@pytest.fixture(scope="module")
def base(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    pipe.save_pretrained(folder)
    return folder


def write_begun(folder, pipe, count, true=None):
    """Clips that begin with their images, or with those of others where `true` says so."""
    clips, pictures = write_shown(folder, pipe, count, steps=5)
    write_images(folder, pictures, ImageEncoder(pipe))
    images = ImageStore.beside(folder).image_of(clips.infos).latents
    for index, info in enumerate(clips.infos):
        clip = load_clip(info.path)
        shown = images[index if true is None or true[index] else index - 1]
        latents = shown + 0.1 * clip.latents
        save_clip(info.path, LatentClip(latents=latents, **clip.record()))
    return LatentFolder(folder)


def run(command, *words, status=0):
    assert main([command, *map(str, words)]) == status


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def fitted(base, pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    write_begun(folder / "real", pipe, 24)
    run(
        "train-discriminator", "--base_model", base, "--real", folder / "real", "--output_dir",
        folder / "judge", "--image_input", "image", "--truncation_probability", 0.5,
        "--truncation_min_seconds", 1, "--truncation_max_seconds", 1.5, "--draws", 1,
        "--swapped", 2, *FIT,
    )  # fmt: skip
    return folder


def test_a_judge_of_images_from_the_command_line(fitted):
    metrics = metrics_of(fitted / "judge")
    assert metrics["accuracy/wrong image"] == metrics["own image higher"] == 1.0
    assert metrics["reference fidelity"] > 0.5
    measured = f"image moves the score by {metrics['reference fidelity']:.2f} standard deviations"
    assert measured in describe_checkpoint(fitted / "judge")
    assert measured in (fitted / "judge" / "README.md").read_text()


def test_the_table_holds_what_the_judge_says_of_clips_with_their_images(fitted, tmp_path):
    out = tmp_path / "scores.csv"
    run("score", fitted / "judge", fitted / "real", "--out", out, *ASK)
    scores = read_scores(out).columns["raw"]
    clips = LatentFolder(fitted / "real")
    image = ImageStore.beside(clips.path).image_of(clips.infos)
    reward = GTSVJReward(load_judge(fitted / "judge"), check_statistics=False)
    latents = torch.stack([clip.latents for clip in clips])
    expected = reward(latents, image=image, fps=8.0, normalize=False)
    found = torch.tensor([scores[info.source] for info in clips.infos])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    swapped = reward(latents, image=image.rows(torch.arange(24).roll(1)), normalize=False)
    assert (swapped < expected).float().mean() > 0.9


def test_aspects_and_preferences_are_fitted_with_images(tmp_path, base, pipe, fitted):
    """Whether a clip begins with its image is what is rated."""
    true = torch.rand(48, generator=torch.Generator().manual_seed(1)).round().bool().tolist()
    clips = write_begun(tmp_path / "rated", pipe, 48, true)
    rows = [(info.source, 4 * int(hit)) for info, hit in zip(clips.infos, true, strict=True)]
    ratings = write_csv(tmp_path / "ratings.csv", ["video", "kept"], rows)
    run(
        "train-aspects", "--latents", tmp_path / "rated", "--ratings", ratings, "--aspects",
        "kept=0:4", "--output_dir", tmp_path / "rates", "--from_judge", fitted / "judge", *FIT,
    )  # fmt: skip
    metrics = metrics_of(tmp_path / "rates")
    assert metrics["spearman/kept"] > 0.6
    assert "reference fidelity" in metrics
    pairs = [
        (a[0], b[0], (a[1] > b[1]) - (a[1] < b[1]))
        for a, b in zip(rows[::2], rows[1::2], strict=True)
    ]
    table = write_csv(tmp_path / "pairs.csv", ["video_a", "video_b", "label"], pairs)
    run(
        "train-preference", "--from_judge", tmp_path / "rates", "--latents", tmp_path / "rated",
        "--comparisons", table, "--output_dir", tmp_path / "prefers", *FIT,
    )  # fmt: skip
    assert load_judge(tmp_path / "prefers").config.image_input == "image"
    run(
        "evaluate", "--benchmark", "pairs", "--data", table, "--latents", tmp_path / "rated",
        "--judge", tmp_path / "prefers", "--out", tmp_path / "eval", *ASK,
        "--resamples", 20,
    )  # fmt: skip


def with_images(folder):
    """Clips of a folder: their latents, and their images."""
    clips = LatentFolder(folder)
    latents = torch.stack([clip.latents for clip in clips])
    return latents, ImageStore.beside(clips.path).image_of(clips.infos)


def correlation(first, second):
    return torch.corrcoef(torch.stack([first, second]))[0, 1].item()


def test_a_student_follows_a_teacher_of_images(tmp_path, pipe, fitted, capsys):
    true = [index % 3 > 0 for index in range(48)]
    write_begun(tmp_path / "clips", pipe, 48, true)
    words = [fitted / "judge", tmp_path / "clips", "--out", tmp_path / "student"]
    words += ["--device", "cpu", "--no_check_statistics", "--allow_untrained_geometry"]
    run("distill", *words, "--image_input", "none", status=1)
    assert "always has an image: set --image_input" in capsys.readouterr().err
    run("distill", *words)
    student = load_judge(tmp_path / "student")
    assert student.config.image_input == "image"
    assert student.config.training["teacher saw"] == "each clip's reference image"
    assert metrics_of(tmp_path / "student")["reference fidelity"] > 0.5
    latents, image = with_images(fitted / "real")
    free = {"check_statistics": False, "allow_untrained_geometry": True}
    others = image.rows(torch.arange(24).roll(1))
    wanted, said = (
        [reward(latents, image=rows, normalize=False) for rows in (image, others)]
        for reward in (GTSVJReward(load_judge(fitted / "judge"), **free),
                       GTSVJReward(student, **free))
    )  # fmt: skip
    assert correlation(torch.cat(said), torch.cat(wanted)) > 0.9


def test_a_judge_of_images_learns_while_people_label(tmp_path, base, fitted):
    for index in range(24):
        moving_square(tmp_path / "videos" / f"{index}.mp4", frames=2, height=32, width=48)
    clips = read_clips(tmp_path / "videos", latents=fitted / "real")
    words = [str(tmp_path / "videos"), "--out", str(tmp_path / "labels"), "--latents",
             str(fitted / "real"), "--device", "cpu"]  # fmt: skip
    args = label.parser().parse_args([*words, "--judge", str(fitted / "judge")])
    model = label.model(args, clips)
    model.read(lambda _: None)
    latents, image = with_images(fitted / "real")
    names = [info.source for info in LatentFolder(fitted / "real").infos]
    order = torch.tensor([names.index(clip.name) for clip in clips])
    reward = GTSVJReward(model.judge, check_statistics=False)
    expected = reward(latents, image=image, normalize=False)[order]
    assert correlation(model.beliefs.scores.float(), expected) > 0.999

    fresh = label.parser().parse_args([*words, "--base_model", str(base), "--image_input", "image"])
    model = label.model(fresh, clips)
    model.read(lambda _: None)
    answers = [
        Answer(
            task=Task(ticket=str(row), rater="ann", kind="compare", choice="random",
                      clips=(clips[row].name, clips[row + 1].name)),
            label=1 if expected[row] > expected[row + 1] else -1,
        )
        for row in range(23)
    ]  # fmt: skip
    model.fit("compare", answers, [])
    assert model.judge.config.image_input == "image"
    agreed = [
        answer.label * (model.beliefs.scores[row] - model.beliefs.scores[row + 1]) > 0
        for row, answer in enumerate(answers)
    ]
    assert sum(agreed) > 20


def test_what_does_not_fit_is_refused_by_name(tmp_path, base, pipe, fitted, capsys):
    clips, pictures = write_shown(tmp_path / "real", pipe, 6)
    words = ["--base_model", base, "--real", clips.path, "--output_dir", tmp_path / "judge"]
    sees = ["--image_input", "image"]
    run("train-discriminator", *words, *sees, *FIT, status=1)
    assert "and 6 of 6 clips have none stored beside them" in capsys.readouterr().err
    run("score", fitted / "judge", clips.path, "--out", tmp_path / "s.csv", status=1)
    assert "encode them with `gtsvj encode --images`" in capsys.readouterr().err
    moving_square(tmp_path / "videos" / "0.mp4", frames=9, height=32, width=48)
    run("score", fitted / "judge", tmp_path / "videos", "--vae", base, "--out",
        tmp_path / "s.csv", *ASK, status=1)  # fmt: skip
    error = capsys.readouterr().err
    assert "encode them with `gtsvj encode --images`, or `--first_frame`" in error
    assert "--vae encodes videos alone: run `gtsvj encode` first" in error
    assert not (tmp_path / "s-latents").exists(), "refused after the videos were encoded"
    same = dict.fromkeys(pictures, pictures["0"])
    write_images(clips.path, same, ImageEncoder(pipe))
    run("train-discriminator", *words, *sees, *FIT, status=1)
    assert "no wrong image for" in capsys.readouterr().err
    run("train-discriminator", *words, *FIT, status=1)
    assert "set --image_input to 'image'" in capsys.readouterr().err
    index = clips.path / "images" / "images.json"
    other = json.loads(index.read_text()) | {"family": "WanTransformer3DModel"}
    index.write_text(json.dumps(other))
    run("train-discriminator", *words, *sees, *FIT, status=1)
    assert "encoded for a WanTransformer3DModel, this judge is of a" in capsys.readouterr().err


def test_images_with_grey_frames_are_cut_with_their_clips(tmp_path):
    """Wan's VAE is causal: latents of a shorter clip are the first ones of a longer one."""
    pipe = frozen(wan_image)
    _, pictures = write_shown(tmp_path / "latents", pipe, 1)
    picture = pictures["0"].load()
    encoder, size = ImageEncoder(pipe), {"height": 32, "width": 48}
    long, short = (encoder([picture], **size, num_frames=count) for count in (17, 9))
    torch.testing.assert_close(long.first(3).latents, short.latents)
    assert long.latents.shape[1] == 5
