"""Judges that read prompts, fitted by the training commands to prompts stored beside latents."""

import json

import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.cli import label, main
from gtsvj_reward.judge import load_judge
from gtsvj_reward.judge.inspect import describe_checkpoint
from gtsvj_reward.labelling import read_clips
from gtsvj_reward.latents.store import LatentClip, LatentFolder, load_clip, save_clip
from gtsvj_reward.reward import PromptEncoder
from gtsvj_reward.reward.text_store import (
    PromptStoreError,
    TextStore,
    write_made,
    write_texts,
)
from gtsvj_reward.training import JudgeArguments, build_judge
from tests.labelling.tiny import moving_square
from tests.pipelines import cogvideox, frozen, wan
from tests.tiny import tiny_space
from tests.training.stages import write_csv

PROMPTS = ("a dog", "a red square")
FIT = ["--held_out_fraction", "0.25", "--device", "cpu"]


@pytest.fixture(scope="module")
def pipe():
    return frozen(cogvideox)


@pytest.fixture(scope="module")
def base(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    pipe.save_pretrained(folder)
    return folder


def write_shown(folder, count, *, seed, says=None, settings=False):
    """Clips that are bright on the left for one prompt, on the right for the other.

    `says` has per clip whether its prompt is true; returns the sources and their prompts.
    """
    generator = torch.Generator().manual_seed(seed)
    space, said = tiny_space(), {}
    for index in range(count):
        side = index % 2
        latents = 0.5 * torch.randn(5, 4, 8, 12, generator=generator)
        latents[..., 6 * side : 6 * side + 6] += 2.0
        true = says is None or says[index]
        source = f"{folder.name}-{index:03d}.mp4"
        said[source] = PROMPTS[side if true else 1 - side]
        save_clip(
            folder / f"{index:03d}.safetensors",
            LatentClip(
                latents=latents,
                space=space,
                fps=8.0,
                num_frames=17,
                source=source,
                source_sha256=f"{folder.name}-{index}",
                settings={"prompt": said[source]} if settings else {},
            ),
        )
    return said


def keep(folder, said, pipe, **further):
    write_texts(folder, list(said), said, PromptEncoder(pipe), **further)
    return folder


def run(command, *words, status=0):
    assert main([command, *map(str, words), *FIT]) == status


def discriminator(folder, base, *words, status=0):
    run(
        "train-discriminator", "--base_model", base, "--real", folder / "real", "--output_dir",
        folder / "judge", "--text_input", "prompt", "--truncation_probability", 0, *words,
        status=status,
    )  # fmt: skip


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def fitted(base, pipe, tmp_path_factory):
    """A folder with real clips, and a judge of them."""
    folder = tmp_path_factory.mktemp("fitted")
    keep(folder / "real", write_shown(folder / "real", 32, seed=0), pipe)
    discriminator(folder, base, "--draws", 1, "--swapped", 2)
    return folder


def test_a_judge_of_prompts_from_the_command_line(fitted, pipe):
    judge = load_judge(fitted / "judge")
    assert (judge.config.text_input, judge.config.prompt_dropout) == ("prompt", 0.1)
    metrics = metrics_of(fitted / "judge")
    assert metrics["accuracy/wrong prompt"] == metrics["own prompt higher"] == 1.0
    assert metrics["prompt sensitivity"] > 0.5
    measured = f"by {metrics['prompt sensitivity']:.2f} standard deviations; 100% of clips"
    assert measured in describe_checkpoint(fitted / "judge")
    assert measured in (fitted / "judge" / "README.md").read_text()
    reward = GTSVJReward(judge, check_statistics=False, allow_untrained_geometry=True)
    clip = load_clip(LatentFolder(fitted / "real").infos[0].path).latents[None]
    encode = PromptEncoder(pipe)
    own, other = (reward(clip, text=encode([prompt])) for prompt in PROMPTS)
    assert own > other
    assert reward(clip).isfinite().all()


def test_aspects_and_preferences_are_fitted_under_prompts(tmp_path, base, pipe, fitted):
    """Whether the prompt is true is what is rated: no judge of latents alone can know it."""
    true = torch.rand(48, generator=torch.Generator().manual_seed(1)).round().bool().tolist()
    said = write_shown(tmp_path / "rated", 48, seed=2, says=true)
    keep(tmp_path / "rated", said, pipe)
    rows = [(source, 4 * int(hit)) for source, hit in zip(said, true, strict=True)]
    ratings = write_csv(tmp_path / "ratings.csv", ["video", "alignment"], rows)
    common = ["--latents", tmp_path / "rated", "--ratings", ratings, "--aspects", "alignment=0:4"]
    common.append("--output_dir")
    run("train-aspects", *common, tmp_path / "reads", "--from_judge", fitted / "judge")
    run("train-aspects", *common, tmp_path / "blind", "--base_model", base)
    reads, blind = (metrics_of(tmp_path / name) for name in ("reads", "blind"))
    name = "spearman/alignment"
    assert reads[name] > 0.6
    assert reads[name] > blind[name] + 0.3
    assert "prompt sensitivity" in reads
    assert "prompt sensitivity" not in blind
    lots = list(zip(rows[::2], rows[1::2], strict=True))
    pairs = [(a[0], b[0], (a[1] > b[1]) - (a[1] < b[1])) for a, b in lots]
    table = write_csv(tmp_path / "pairs.csv", ["video_a", "video_b", "label"], pairs)
    run(
        "train-preference", "--from_judge", tmp_path / "reads", "--latents", tmp_path / "rated",
        "--comparisons", table, "--output_dir", tmp_path / "prefers",
    )  # fmt: skip
    config = load_judge(tmp_path / "prefers").config
    assert config.text_input == "prompt"
    assert "of clips score higher under their own" in config.training["prompt sensitivity"]


def test_generated_negatives_are_shown_under_the_prompts_that_made_them(tmp_path, base, pipe):
    keep(tmp_path / "real", write_shown(tmp_path / "real", 8, seed=0), pipe)
    write_shown(tmp_path / "made", 6, seed=3, settings=True)
    words = ["--generated", tmp_path / "made", "--draws", 2, "--swapped", 0]
    discriminator(tmp_path, base, *words, status=1)
    assert write_made(tmp_path / "made", PromptEncoder(pipe)) == 2
    info = LatentFolder(tmp_path / "made").infos[0]
    assert TextStore.beside(tmp_path / "made").prompt(info) == "a dog"
    discriminator(tmp_path, base, *words)
    assert "accuracy/generated" in metrics_of(tmp_path / "judge")


def test_stored_wrong_prompts_take_the_place_of_those_of_other_clips(tmp_path, base, pipe, capsys):
    said = write_shown(tmp_path / "real", 12, seed=0)
    keep(tmp_path / "real", said, pipe)
    words = ["--draws", 0, "--wrong_prompts", "stored"]
    discriminator(tmp_path, base, *words, status=1)
    wrong = {source: ["a dog runs", "red"] for source in said}
    keep(tmp_path / "real", said, pipe, wrong=wrong)
    discriminator(tmp_path, base, *words)
    assert "energies of held-out clips: " in capsys.readouterr().err
    config = load_judge(tmp_path / "judge").config
    assert config.training["energy: pairs"] == 2 * 9  # two for each of the nine clips trained on


def correlation(first, second):
    return torch.corrcoef(torch.stack([first, second]))[0, 1].item()


def half_true(folder, pipe, count, *, seed):
    """Clips half of which have the prompt of the other kind; what they are, and their prompts."""
    true = torch.rand(count, generator=torch.Generator().manual_seed(seed)).round().bool().tolist()
    keep(folder, write_shown(folder, count, seed=seed, says=true), pipe)
    infos, store = LatentFolder(folder).infos, TextStore.beside(folder)
    latents = torch.stack([load_clip(info.path).latents for info in infos])
    return latents, [store.prompt(info) for info in infos], torch.tensor(true)


def test_a_student_follows_a_teacher_of_prompts_if_it_reads_them_too(
    tmp_path, base, pipe, fitted, capsys
):
    half_true(tmp_path / "clips", pipe, 96, seed=5)
    latents, prompts, true = half_true(tmp_path / "new", pipe, 24, seed=6)
    encode = PromptEncoder(pipe)
    words = [fitted / "judge", tmp_path / "clips", "--out"]
    run("distill", *words, tmp_path / "reads")
    run("distill", *words, tmp_path / "blind", "--text_input", "zeros")
    free = {"check_statistics": False, "allow_untrained_geometry": True}
    teacher, reads, blind = (
        GTSVJReward.from_pretrained(folder, **free)
        for folder in (fitted / "judge", tmp_path / "reads", tmp_path / "blind")
    )
    others = [PROMPTS[1 - PROMPTS.index(prompt)] for prompt in prompts]
    wanted, said = (
        [judge(latents, text=encode(texts), normalize=False) for texts in (prompts, others)]
        for judge in (teacher, reads)
    )
    assert correlation(said[0], wanted[0]) > 0.9
    assert correlation(said[0] - said[1], wanted[0] - wanted[1]) > 0.9
    change = (wanted[0] - wanted[1]) * torch.where(true, 1, -1)
    assert (change > 0).float().mean() > 0.9, "the teacher knows whose prompt is true"
    assert correlation(blind(latents, normalize=False), wanted[0]) < 0.7
    assert reads(latents).isfinite().all()  # a share of the clips was shown without prompts
    assert (reads.config.text_input, reads.config.prompt_dropout) == ("prompt", 0.1)
    assert (blind.config.text_input, blind.reads_text) == ("zeros", False)
    for student in (reads, blind):
        assert student.config.training["teacher saw"] == "each clip's prompt"
    assert metrics_of(tmp_path / "reads")["prompt sensitivity"] > 0.5
    assert "It ignores the prompt" in (tmp_path / "blind" / "README.md").read_text()
    frozen(wan).save_pretrained(tmp_path / "wan")
    other = tmp_path / "other"
    run("distill", *words, other, "--base_model", tmp_path / "wan", status=1)
    assert "for a CogVideoXTransformer3DModel, this judge is of a Wan" in capsys.readouterr().err
    assert not other.with_name("other-teacher").exists(), "refused after the clips were scored"
    (tmp_path / "new" / "prompts" / "prompts.json").unlink()
    run("distill", tmp_path / "blind", tmp_path / "new", "--out", tmp_path / "late",
        "--text_input", "prompt", status=1)  # fmt: skip
    assert "24 of 24 clips have none stored beside them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "words", "message"),
    [
        (None, [], "and 6 of 6 clips have none stored beside them"),
        (wan, [], "encoded for a WanTransformer3DModel, this judge is of a CogVideoX"),
        (cogvideox, ["--swapped", "0", "--draws", "0"], "not both 0"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, base, capsys, make, words, message):
    said = write_shown(tmp_path / "real", 6, seed=0)
    if make is not None:
        keep(tmp_path / "real", said, frozen(make))
    discriminator(tmp_path, base, *words, status=1)
    assert message in capsys.readouterr().err


def test_a_fresh_judge_of_prompts_reads_them_while_people_label(tmp_path, base, pipe, capsys):
    said = write_shown(tmp_path / "latents", 4, seed=0)
    for source in said:
        moving_square(tmp_path / "videos" / source, frames=2, height=32, width=48)
    clips = read_clips(tmp_path / "videos", latents=tmp_path / "latents")
    words = [tmp_path / "videos", "--out", tmp_path / "labels", "--latents",
             tmp_path / "latents", "--device", "cpu", "--text_input", "prompt"]  # fmt: skip
    args = label.parser().parse_args([*map(str, words), "--base_model", str(base)])
    with pytest.raises(PromptStoreError, match="have none stored beside them"):
        label.model(args, clips)
    keep(tmp_path / "latents", said, pipe)
    assert "encode prompts: 100%" in capsys.readouterr().err
    model = label.model(args, clips)
    model.read(lambda _: None)
    judge = model.judge
    assert (judge.config.text_input, judge.config.prompt_dropout) == ("prompt", 0.1)
    with pytest.raises(SystemExit):
        main(["label", *map(str, words), "--judge", "any"])
    assert "--text_input has no use with --judge" in capsys.readouterr().err


def test_no_prompts_reach_the_readout_that_is_trained_with_lora(base):
    arguments = JudgeArguments(base_model=str(base), readout="mlp", text_input="prompt")
    with pytest.raises(ValueError, match="is for `--readout moments`"):
        build_judge(arguments, tiny_space(), seed=0)
