"""Folders of negatives: what each is made of, resumed and shared runs, and what is refused."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from gtsvj_reward.latents import (
    EncodeMismatchError,
    LatentClip,
    LatentFolder,
    LatentSpaceError,
    load_clip,
    save_clip,
)
from gtsvj_reward.latents.content import content_key, made_from
from gtsvj_reward.sampling import (
    ClipSize,
    NegativeSettings,
    Prompted,
    latent_space,
    make_negatives,
    read_prompts,
    renoised,
)
from gtsvj_reward.sampling.pipelines import load_pipeline
from gtsvj_reward.training.splits import beside, check_apart, check_real, clip_keys
from tests.pipelines import frozen, hunyuan_video, ltx, mochi
from tests.sampling.tiny import assert_same_clip, cogvideox, wan

SETTINGS = NegativeSettings(strengths=(0.3, 0.8), guidance_scale=2.0)
PROMPTED = Prompted(prompts=("a dog", "runs"), size=ClipSize(9, 32, 48), fps=8.0)


@pytest.fixture
def pipe():
    return cogvideox(text=True)


def write_real(folder, space, count=3, *, rows=4, prompts=True):
    """Clips `0.mp4` and so on, every second one in a folder; the first says its prompt."""
    for index in range(count):
        generator = torch.Generator().manual_seed(20 + index)
        name = f"{'a/' * (index % 2)}{index}.mp4"
        save_clip(
            folder / f"{name}.safetensors",
            LatentClip(
                latents=torch.randn(3, space.channels, rows, 6, generator=generator),
                space=space,
                fps=8.0,
                num_frames=space.video_frames(3),
                source=name,
                source_sha256=f"hash-{index}" if index else None,
                settings={"prompt": "a dog"} if prompts and index == 0 else {},
            ),
        )
    return LatentFolder(folder)


def transformer_calls(pipe):
    """One entry for each pass of the transformer."""
    calls = []
    pipe.transformer.register_forward_hook(lambda *_: calls.append(1))
    return calls


def clips_of(folder):
    return {
        path.relative_to(folder).as_posix(): load_clip(path)
        for path in sorted(folder.rglob("*.safetensors"))
    }


def assert_same_folders(found, expected):
    assert found.keys() == expected.keys()
    for name, clip in found.items():
        assert_same_clip(clip.latents, expected[name].latents)
        assert clip.record() == expected[name].record()


FAMILIES = {
    "cogvideox-1.5": lambda: cogvideox("1.5", text=True),
    "wan": lambda: wan(text=True),
    "hunyuan_video": lambda: frozen(hunyuan_video),
    "ltx": lambda: frozen(ltx),
    "mochi": lambda: frozen(mochi),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_each_real_clip_at_each_strength(tmp_path, name):
    pipe = FAMILIES[name]()
    real = write_real(tmp_path / "real", latent_space(pipe))
    settings = replace(SETTINGS, renoise_steps=(2, 3)) if name == "mochi" else SETTINGS
    report = make_negatives(pipe, tmp_path / "out", real=tmp_path / "real", settings=settings)
    found = clips_of(tmp_path / "out")
    frames = latent_space(pipe).video_frames(3)
    assert list(found) == [
        f"{name}.mp4-t{level}.safetensors"
        for name in ("0", "2", "a/1")
        for level in ("0300", "0800")
    ]
    assert len(report.made) == 6
    for info in real.infos:
        for strength in (0.3, 0.8):
            name = f"{info.source}-t0{round(1000 * strength)}"
            clip = found[f"{name}.safetensors"]
            assert clip.space == latent_space(pipe)
            assert (clip.source, clip.fps, clip.num_frames) == (name, 8.0, frames)
            assert clip.settings["strength"] == strength
            assert clip.settings["source"] == info.source
            assert clip.settings["source_sha256"] == info.source_sha256
            assert clip.settings["prompt"] == ("a dog" if info.source == "0.mp4" else "")
            assert clip.settings["steps"] in (1, 2, 3)
            assert (clip.latents - load_clip(info.path).latents).abs().max() > 0.05
    assert [path.name for path in report.without_caption] == [
        "2.mp4.safetensors",
        "1.mp4.safetensors",
    ]


def test_a_file_holds_what_its_settings_say(tmp_path, pipe):
    """Made again from the settings alone."""
    from gtsvj_reward.random_keys import keyed_generator

    real = write_real(tmp_path / "real", latent_space(pipe), 1)
    settings = replace(SETTINGS, seed=4)
    make_negatives(pipe, tmp_path / "out", real=tmp_path / "real", settings=settings)
    (info,) = real.infos
    number = int(content_key(info).removeprefix("content:"), 16)
    for name, clip in clips_of(tmp_path / "out").items():
        made = clip.settings
        again = renoised(
            pipe,
            load_clip(info.path).latents[None],
            [made["prompt"]],
            strength=made["strength"],
            steps=made["steps"],
            generators=[keyed_generator(made["seed"], 0, number, round(1000 * made["strength"]))],
            size=ClipSize(9, 32, 48),
            guidance_scale=made["guidance_scale"],
        )
        assert_same_clip(clip.latents, again[0])
        assert made["pipeline"] == "CogVideoXPipeline", name


def test_numbers_of_steps_are_drawn_and_clips_that_share_them_share_a_batch(tmp_path, pipe):
    write_real(tmp_path / "real", latent_space(pipe), 9)
    settings = NegativeSettings(guidance_scale=1.0, batch_size=8)
    passes = transformer_calls(pipe)
    make_negatives(pipe, tmp_path / "out", real=tmp_path / "real", settings=settings)
    made = [clip.settings for clip in clips_of(tmp_path / "out").values()]
    counts = Counter(settings["steps"] for settings in made)
    assert sorted(counts) == [1, 2, 3]
    assert min(counts.values()) >= 5, "36 draws of three numbers"
    alike = Counter((settings["strength"], settings["steps"]) for settings in made)
    assert len(passes) == sum(-(-count // 8) * steps for (_, steps), count in alike.items())


def test_captions_of_a_table_come_before_those_of_the_files(tmp_path, pipe):
    write_real(tmp_path / "real", latent_space(pipe))
    report = make_negatives(
        pipe,
        tmp_path / "out",
        real=tmp_path / "real",
        captions={"videos/0.mp4": "runs", "1.mp4": "dog", "9.mp4": "a"},
        settings=SETTINGS,
    )
    found = clips_of(tmp_path / "out")
    prompts = {clip.settings["source"]: clip.settings["prompt"] for clip in found.values()}
    assert prompts == {"0.mp4": "runs", "a/1.mp4": "dog", "2.mp4": ""}
    assert report.captions_unused == ("9.mp4",)
    assert [path.name for path in report.without_caption] == ["2.mp4.safetensors"]


def test_prompts_in_few_steps(tmp_path, pipe):
    settings = NegativeSettings(sample_steps=(1, 2), per_prompt=2, batch_size=3)
    make_negatives(pipe, tmp_path / "out", prompted=PROMPTED, settings=settings)
    found = clips_of(tmp_path / "out")
    assert len(found) == 8
    for name, clip in found.items():
        assert name.removesuffix(".safetensors") == clip.source
        assert clip.latents.shape == (3, 4, 4, 6)
        assert (clip.fps, clip.num_frames, clip.settings["source"]) == (8.0, 9, None)
        (origin,) = clip.settings["made_from"]
        assert origin.startswith("prompt:")
    steps = [(clip.settings["prompt"], clip.settings["steps"]) for clip in found.values()]
    assert Counter(steps) == {(prompt, n): 2 for prompt in PROMPTED.prompts for n in (1, 2)}
    different = {clip.latents.sum().item() for clip in found.values()}
    assert len(different) == 8
    with_other_seed = replace(settings, seed=1)
    make_negatives(pipe, tmp_path / "other", prompted=PROMPTED, settings=with_other_seed)
    assert not different & {c.latents.sum().item() for c in clips_of(tmp_path / "other").values()}


@pytest.mark.parametrize(("shards", "batch_size"), [(3, 1), (2, 4)])
def test_shards_and_batches_change_nothing(tmp_path, pipe, shards, batch_size):
    write_real(tmp_path / "real", latent_space(pipe), 4)
    given = {"real": tmp_path / "real", "prompted": PROMPTED}
    make_negatives(pipe, tmp_path / "one", settings=SETTINGS, **given)
    expected = clips_of(tmp_path / "one")
    reports = [
        make_negatives(
            pipe,
            tmp_path / "shared",
            settings=replace(SETTINGS, batch_size=batch_size),
            process_index=index,
            num_processes=shards,
            **given,
        )
        for index in range(shards)
    ]
    assert sum(len(report.made) for report in reports) == len(expected) == 14
    assert all(report.made for report in reports)
    assert_same_folders(clips_of(tmp_path / "shared"), expected)


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, pipe, monkeypatch):
    write_real(tmp_path / "real", latent_space(pipe))
    given = {"real": tmp_path / "real", "prompted": PROMPTED, "settings": SETTINGS}
    make_negatives(pipe, tmp_path / "whole", **given)
    expected = clips_of(tmp_path / "whole")
    forward, passes = pipe.transformer.forward, []

    def killed(*args, **keywords):
        passes.append(1)
        if len(passes) == 9:
            raise KeyboardInterrupt
        return forward(*args, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(pipe.transformer, "forward", killed)
        with pytest.raises(KeyboardInterrupt):
            make_negatives(pipe, tmp_path / "out", **given)
    done = clips_of(tmp_path / "out")
    assert 0 < len(done) < len(expected)
    part = tmp_path / "out" / f".{next(iter(expected))}.1.part"
    part.write_bytes(b"torn")
    victim = tmp_path / "out" / next(iter(done))
    victim.write_bytes(b"cut short")
    report = make_negatives(pipe, tmp_path / "out", **given)
    assert len(report.already_done) == len(done) - 1
    assert len(report.made) == len(expected) - len(done) + 1
    assert_same_folders(clips_of(tmp_path / "out"), expected)
    assert not list((tmp_path / "out").rglob("*.part"))
    calls = transformer_calls(pipe)
    assert len(make_negatives(pipe, tmp_path / "out", **given).already_done) == len(expected)
    assert not calls


def test_files_that_were_made_otherwise_are_refused_before_anything_is_made(tmp_path, pipe):
    write_real(tmp_path / "real", latent_space(pipe))
    given = {"real": tmp_path / "real", "settings": SETTINGS}
    make_negatives(pipe, tmp_path / "out", **given)
    before = clips_of(tmp_path / "out")
    calls = transformer_calls(pipe)
    more = replace(SETTINGS, seed=1, strengths=(0.3, 0.5, 0.8))
    with pytest.raises(EncodeMismatchError, match="seed was 0, is now 1"):
        make_negatives(pipe, tmp_path / "out", real=tmp_path / "real", settings=more)
    other = cogvideox(text=True)
    other.transformer.proj_out.weight.data.add_(0.1)
    with pytest.raises(EncodeMismatchError, match="generator was"):
        make_negatives(other, tmp_path / "out", **given)
    source = tmp_path / "real" / "2.mp4.safetensors"
    clip = load_clip(source)
    save_clip(source, replace(clip, latents=clip.latents + 1))
    with pytest.raises(EncodeMismatchError, match="made_from was"):
        make_negatives(pipe, tmp_path / "out", **given)
    assert not calls
    report = make_negatives(pipe, tmp_path / "out", overwrite=True, **given)
    assert len(report.made) == 2
    assert len(report.already_done) == 4
    after = clips_of(tmp_path / "out")
    changed = [name for name in after if not after[name].latents.equal(before[name].latents)]
    assert changed == ["2.mp4-t0300.safetensors", "2.mp4-t0800.safetensors"]


def test_a_schedule_of_one_step_is_refused_for_mochi_before_anything_is_made(tmp_path):
    pipe = frozen(mochi)
    write_real(tmp_path / "real", latent_space(pipe))
    calls = transformer_calls(pipe)
    with pytest.raises(ValueError, match=r"a MochiPipeline takes at least 2 steps, got 1: give"):
        make_negatives(pipe, tmp_path / "out", real=tmp_path / "real", settings=SETTINGS)
    assert not calls


def test_ltx_is_told_the_frame_rate_of_its_clips(tmp_path):
    pipe, seen = frozen(ltx), []
    pipe.transformer.register_forward_hook(
        lambda module, given, kwargs, output: seen.append(kwargs["rope_interpolation_scale"]),
        with_kwargs=True,
    )
    prompted = replace(PROMPTED, size=ClipSize(17, 64, 96), fps=16.0)
    settings = NegativeSettings(sample_steps=(1,), guidance_scale=1.0)
    make_negatives(pipe, tmp_path, prompted=prompted, settings=settings)
    assert seen == [(0.5, 32, 32)] * 2  # eight frames a latent
    assert {clip.settings["frame_rate"] for clip in clips_of(tmp_path).values()} == {16.0}


def test_foreign_latents_are_refused(tmp_path, pipe):
    space = latent_space(wan())
    write_real(tmp_path / "real", space)
    with pytest.raises(
        LatentSpaceError, match=r"`real` .* holds latents of `wan.*works on `cogvideox"
    ):
        make_negatives(pipe, tmp_path / "out", real=tmp_path / "real")


def test_sizes_that_make_no_whole_tokens_are_refused(tmp_path, pipe):
    write_real(tmp_path / "real", latent_space(pipe), 1, rows=5)
    with pytest.raises(ValueError, match=r"0\.mp4\..*multiples of 16 pixels.*got 40x48"):
        make_negatives(pipe, tmp_path / "out", real=tmp_path / "real")


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (ClipSize(8, 32, 48), "got 8: take 5"),
        (ClipSize(9, 40, 48), "clips of prompts: .* multiples of 16 pixels.*got 40x48"),
        (ClipSize(9, 0, 48), "got 0x48"),
    ],
)
def test_sizes_that_the_pipeline_would_round_are_refused(tmp_path, pipe, size, message):
    calls = transformer_calls(pipe)
    with pytest.raises(ValueError, match=message):
        make_negatives(pipe, tmp_path / "out", prompted=replace(PROMPTED, size=size))
    assert not calls


def test_splits_keep_negatives_with_their_source(tmp_path, pipe):
    real = write_real(tmp_path / "real", latent_space(pipe), 4).infos
    make_negatives(
        pipe, tmp_path / "out", real=tmp_path / "real", prompted=PROMPTED, settings=SETTINGS
    )
    negatives = LatentFolder(tmp_path / "out").infos
    check_real(real, negatives)
    for info in real:
        own = [n for n in negatives if clip_keys(n) & clip_keys(info)]
        assert [n.source for n in own] == [f"{info.source}-t0300", f"{info.source}-t0800"]
    train, held_out, free = beside(negatives, real[1:], real[:1])
    check_apart([*real[1:], *train], [*real[:1], *held_out])
    assert (len(train), len(held_out), len(free)) == (6, 2, 6)
    with pytest.raises(
        ValueError, match=r"2 held-out clips .* made from the same clip or prompt as"
    ):
        check_apart(real, held_out)
    assert all(made_from(info)[0].startswith("prompt:") for info in free)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strengths": (0.0, 0.4)}, "at 0 a clip stays as it is"),
        ({"strengths": (0.4, 1.2)}, "`strengths` must be .* at most 1"),
        ({"strengths": (0.4, 0.4001)}, "0.001 apart"),
        ({"strengths": ()}, "`strengths`"),
        ({"renoise_steps": (0, 1)}, "`renoise_steps` must be different whole numbers from 1"),
        ({"sample_steps": (2, 2)}, "`sample_steps`"),
        ({"per_prompt": 0}, "`per_prompt` and `batch_size`"),
    ],
)
def test_settings_that_make_nothing_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        NegativeSettings(**changes)


def test_nothing_to_do_is_refused(tmp_path, pipe):
    with pytest.raises(ValueError, match="give `real`, `prompts` or both"):
        make_negatives(pipe, tmp_path)
    with pytest.raises(ValueError, match="expected different prompts, got 2"):
        replace(PROMPTED, prompts=("a", "a"))


def test_prompts_are_read_once_each(tmp_path):
    text, table, empty = tmp_path / "p.txt", tmp_path / "p.csv", tmp_path / "empty.txt"
    text.write_text("a dog\n\n  runs \na dog\n")
    table.write_text("video,prompt\n1.mp4,a dog\n2.mp4,a dog\n3.mp4,runs\n")
    empty.write_text("\n")
    assert read_prompts(text) == read_prompts(table) == ("a dog", "runs")
    with pytest.raises(ValueError, match="holds no prompt"):
        read_prompts(empty)
    with pytest.raises(FileNotFoundError, match=r"nothing\.txt"):
        read_prompts(tmp_path / "nothing.txt")


def test_pipelines_are_loaded_by_name_and_refused_by_class(tmp_path):
    pipe = load_pipeline("gtsvj-toy-pipeline", dtype=torch.float32, device="cpu")
    assert type(pipe).__name__ == "CogVideoXPipeline"
    with pytest.raises(FileNotFoundError, match="no pipeline 'nothing'"):
        load_pipeline("nothing", dtype=torch.float32, device="cpu")
    index = {"_class_name": "AllegroPipeline", "_diffusers_version": "0.36.0"}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="cannot sample with a AllegroPipeline"):
        load_pipeline(tmp_path, dtype=torch.float32, device="cpu")
