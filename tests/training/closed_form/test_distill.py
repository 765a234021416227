"""`gtsvj distill`: cheaper judges from what a judge or a table says of clips without labels."""

import csv

import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.cli import main
from gtsvj_reward.judge import Aspect, load_judge, save_judge
from gtsvj_reward.latents.store import LatentClip, LatentFolder, save_clip
from gtsvj_reward.training.closed_form.distill import share_in_order
from gtsvj_reward.training.closed_form.features import FeatureCache
from tests.judge.test_moment_judge import moment_judge
from tests.tiny import ASPECTS, clips, tiny_aspect_judge, tiny_judge, tiny_space, tiny_transformer

TWO = (Aspect(name="clear", low=1, high=5), Aspect(name="focus", low=0, high=3))


def write_varied(folder, count, *, seed=0, size=(4, 6), **changes):
    """Clips whose brightness, contrast and movement vary."""
    generator = torch.Generator().manual_seed(seed)
    for index in range(count):
        noise = clips(1, 3, *size, seed=1000 * seed + index)[0]
        level, contrast, moving = torch.rand(3, generator=generator)
        latents = (0.5 + contrast) * (moving * noise + (1 - moving) * noise[:1]) + level
        clip = {"space": tiny_space(), "fps": 8.0, "num_frames": 9, "source": f"{index:03d}.mp4"}
        save_clip(
            folder / f"{index:03d}.safetensors", LatentClip(latents=latents, **{**clip, **changes})
        )


def run(*words, status=0):
    assert main(["distill", *map(str, words), "--device", "cpu"]) == status


def said(judge, folder):
    """Scores and aspects of a folder's clips."""
    latents = torch.stack([clip.latents for clip in LatentFolder(folder)])
    with torch.no_grad():
        out = judge(latents)
    return out.scores.mean(1), None if out.aspects is None else out.aspects.mean(1)


def correlation(first, second):
    return torch.corrcoef(torch.stack([first, second]))[0, 1].item()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A base of two blocks, a moment teacher on it, clips without labels, and further clips."""
    folder = tmp_path_factory.mktemp("distill")
    transformer = tiny_transformer(layers=2)
    transformer.save_pretrained(folder / "base")
    write_varied(folder / "clips", 330)
    write_varied(folder / "new", 30, seed=1)
    teacher = moment_judge(
        transformer=transformer, base_model=str(folder / "base"), taps=[0, 1], stage="preference",
        aspects=TWO, reward_mean=None, reward_std=None, reward_data=None,
    )  # fmt: skip
    cache = FeatureCache(teacher)
    names = cache.read([lambda c=c: c.latents for c in LatentFolder(folder / "clips")], "clips")
    features = cache.features(names)
    teacher.head.mean.copy_(features.mean(0))
    teacher.head.deviation.copy_(features.std(0).clamp_min(1e-3))
    teacher.head.output.weight.mul_(0.5)
    teacher.preference.weight.copy_(torch.tensor([[0.9, -0.3]]))
    teacher.preference.bias.fill_(0.2)
    save_judge(teacher, folder / "teacher")
    return folder


@pytest.fixture(scope="module")
def student(world):
    run(world / "teacher", world / "clips", "--out", world / "student", "--taps", 0, 1)
    return load_judge(world / "student")


def test_a_student_that_sees_as_much_says_what_its_teacher_says(world, student):
    scores, aspects = said(student, world / "new")
    taught, wanted = said(load_judge(world / "teacher"), world / "new")
    for column in range(2):
        assert correlation(aspects[:, column], wanted[:, column]) > 0.999
    assert correlation(scores, taught) > 0.999
    assert (aspects - wanted).abs().max() < 0.05 * wanted.std(0).min()
    assert wanted.min() < 0 or wanted.max() > 1, "values beyond the scale are targets as well"


def test_a_student_keeps_scales_and_preference_and_names_its_teacher(world, student):
    teacher = load_judge(world / "teacher")
    assert student.config.aspects == TWO
    assert torch.equal(student.preference.weight, teacher.preference.weight)
    assert torch.equal(student.preference.bias, teacher.preference.bias)
    record = student.config.training
    chosen = -(-record["aspects: clips"] // 2)  # one in two, so that there are 256 at most
    assert student.config.latent_statistics.clips == chosen
    assert record["teacher"] == str(world / "teacher")
    assert record["aspects: clips"] + record["held out"]["clips"] == 330
    assert record["held out"]["correlation/clear"] > 0.999
    assert record["held out"]["pairs in order/score"] > 0.99
    assert record["held out"]["mean error/focus"] < 0.05
    scores, _ = said(student, world / "clips")
    assert abs(scores.mean() - student.config.reward_mean) < 0.1 * student.config.reward_std
    assert abs(scores.std() / student.config.reward_std - 1) < 0.1
    out = GTSVJReward.from_pretrained(world / "student", pessimism=1.0).details(
        [clip.latents for clip in LatentFolder(world / "new")][:2], fps=8.0
    )
    assert (out.uncertainty > 0).all()


def test_a_student_with_less_to_see_follows(world, capsys):
    flags = ["--depth", 1, "--taps", 1, "--latent_pooling", 2, "--held_out_fraction", 0.2]
    write_varied(world / "large", 120, seed=2, size=(8, 12))
    run(world / "teacher", world / "large", "--out", world / "small", *flags)
    config = load_judge(world / "small").config
    assert (config.depth, config.taps, config.latent_pooling) == (1, [1], 2)
    assert "judge: " in capsys.readouterr().out
    assert config.training["held out"]["clips"] == 24
    assert 0.7 < config.training["held out"]["correlation/clear"] < 1


def test_a_second_run_scores_and_reads_no_clip_again(world, student):
    files = list((world / "student-teacher").glob("*.jsonl"))
    weight = student.head.output.weight.clone()
    kept = {path: path.stat().st_mtime_ns for path in (world / "features").rglob("*.safe*")}
    run(world / "teacher", world / "clips", "--out", world / "student", "--taps", 0, 1)
    assert torch.equal(load_judge(world / "student").head.output.weight, weight)
    sizes = [file.read_bytes().count(b"\n") for file in files]
    assert sizes == [331]  # a header, and no clip a second time
    after = {path: path.stat().st_mtime_ns for path in (world / "features").rglob("*.safe*")}
    assert {path: after[path] for path in kept} == kept


@pytest.mark.parametrize("stage", ["discriminator", "aspects"])
def test_teachers_with_the_other_readout(world, stage):
    transformer = tiny_transformer(layers=2)
    make = tiny_judge if stage == "discriminator" else tiny_aspect_judge
    teacher = make(transformer=transformer, base_model=str(world / "base"), geometry=None)
    save_judge(teacher, world / f"mlp-{stage}")
    out = world / f"of-mlp-{stage}"
    run(world / f"mlp-{stage}", world / "clips", "--out", out)
    student = load_judge(out)
    scores, aspects = said(student, world / "new")
    taught, wanted = said(teacher, world / "new")
    assert correlation(scores, taught) > 0.8
    if stage == "aspects":
        assert student.config.aspects == ASPECTS
        assert student.config.stage == "aspects"
        assert correlation(aspects[:, 0], wanted[:, 0]) > 0.8
    else:
        assert aspects is None
        assert student.config.stage == "preference"
        assert student.config.training["preference: clips"] == 297


def write_table(path, header, rows):
    with path.open("w", newline="") as opened:
        csv.writer(opened).writerows([header, *rows])
    return path


def test_a_table_of_scores_is_a_teacher(world, tmp_path):
    brightness = [clip.latents.mean().item() for clip in LatentFolder(world / "clips")]
    rows = [
        (f"videos/{index:03d}.mp4", value, "" if index % 10 == 0 else -value, f"text {index}")
        for index, value in enumerate(brightness[:300])
    ]
    table = write_table(tmp_path / "s.csv", ["video", "aspect:bright", "aspect:dark", "by"], rows)
    run(
        world / "clips", "--scores", table, "--out", tmp_path / "student", "--base_model",
        world / "base", "--taps", 0,
    )  # fmt: skip
    student = load_judge(tmp_path / "student")
    assert [aspect.name for aspect in student.config.aspects] == ["bright", "dark"]
    bright = student.config.aspects[0]
    assert (bright.low, bright.high) == pytest.approx(
        (min(brightness[:300]), max(brightness[:300]))
    )
    _, aspects = said(student, world / "new")
    level = torch.stack([clip.latents.mean() for clip in LatentFolder(world / "new")])
    told = bright.low + aspects[:, 0] * (bright.high - bright.low)
    torch.testing.assert_close(told, level, atol=0.02, rtol=0)
    assert correlation(aspects[:, 1], level) < -0.99


def test_a_table_of_one_score(world, tmp_path):
    rows = [(f"{index:03d}.mp4", index % 7, 3) for index in range(60)]
    table = write_table(tmp_path / "s.csv", ["video", "reward", "raw"], rows)
    flags = ["--scores", table, "--base_model", world / "base", "--taps", 0]
    run(world / "clips", *flags, "--out", tmp_path / "student")
    config = load_judge(tmp_path / "student").config
    assert (config.stage, config.aspects) == ("preference", ())


def test_foreign_latents_are_refused(world, tmp_path, capsys):
    write_varied(tmp_path / "foreign", 5, space=tiny_space(id="other"))
    run(world / "teacher", tmp_path / "foreign", "--out", tmp_path / "student", status=1)
    assert "other" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--taps", 0, 3], "--taps must rise within 0"),
        (["--depth", 3], "--depth must be in 1..2"),
        (["--latent_pooling", 0], "--latent_pooling must be >= 1"),
        (["--latent_pooling", 4], "too small for this judge"),
        (["--held_out_fraction", 2], "--held_out_fraction must lie in (0, 1)"),
        (["--group_by", "x(y)"], "--group_by 'x(y)' matches none of 30 clips"),
        (["--features", "base/config.json"], "base/config.json"),
        (["--out", "base/config.json"], "base/config.json"),
    ],
)
def test_a_student_that_cannot_be_is_refused_before_the_teacher_scores(
    world, tmp_path, monkeypatch, capsys, flags, message
):
    monkeypatch.chdir(world)
    out = tmp_path / "student"
    run("teacher", "new", "--out", out, *flags, status=1)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.jsonl")), "clips were scored"


def test_errors_name_flags(world, tmp_path, capsys):
    table = write_table(tmp_path / "s.csv", ["video", "a"], [("000.mp4", 1), ("nowhere.mp4", 2)])
    out = ["--out", tmp_path / "student"]
    wrong = {
        "give one teacher: a judge, or --scores TABLE": [world / "clips", *out],
        "--scores needs --base_model": [world / "clips", "--scores", table, *out],
        "--columns has no use without --scores": [
            world / "teacher", world / "clips", *out, "--columns", "a",
        ],
        "--overwrite has no use with --scores": [
            world / "clips", "--scores", table, "--overwrite", *out,
        ],
    }  # fmt: skip
    for message, words in wrong.items():
        with pytest.raises(SystemExit):
            run(*words)
        assert message in capsys.readouterr().err
    based = ["--scores", table, "--base_model", world / "base", *out]
    run(world / "clips", *based, status=1)
    assert "1 of 2 videos have no latent file" in capsys.readouterr().err
    mixed = write_table(
        tmp_path / "m.csv", ["video", "x", "y"], [("000.mp4", 1, 2), ("001.mp4", "nan", 3)]
    )
    for words in ([], ["--columns", "x"]):
        run(world / "clips", "--scores", mixed, *based[2:], *words, status=1)
        said = capsys.readouterr().err
        assert "1 of 2 cells of `x` are no finite numbers" in said
        assert "choose others with `--columns`" in said
    run(world / "clips", *based, "--allow_missing_videos", status=1)
    assert "leave it out with `--columns`" in capsys.readouterr().err


def test_pairs_in_the_order_of_a_teacher():
    teacher = torch.tensor([1.0, 2.0, 2.0, 3.0])
    student = torch.tensor([1.0, 3.0, 0.0, 3.0])
    # 12 right, 13 wrong, 14 right, 23 tied by the teacher, 24 tied by the student, 34 right.
    assert share_in_order(student, teacher) == pytest.approx(3.5 / 5)
