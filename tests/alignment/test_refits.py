"""A judge that keeps up: what a refit knows, that a run with refits goes on to the bit."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from functools import partial
from hashlib import sha256
from itertools import combinations, pairwise
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator, PartialState
from safetensors.torch import load_file

from gtsvj_reward import GTSVJReward, LatentSpace
from gtsvj_reward.alignment import (
    AlignArguments,
    AlignmentRun,
    Policy,
    Refits,
    Sampler,
    differentiable_sample,
)
from gtsvj_reward.alignment.journal import read_journal
from gtsvj_reward.alignment.own_clips import PolicyText
from gtsvj_reward.alignment.refit_labels import hashed, read_labels
from gtsvj_reward.backbones import LiveBackbone
from gtsvj_reward.judge import Aspect, JudgeConfig, VideoJudge
from gtsvj_reward.latents.space import LatentSpaceError
from gtsvj_reward.latents.store import LatentClip, LatentFolder, load_clip, save_clip
from gtsvj_reward.losses import contrastive_loss
from gtsvj_reward.reward.text_store import PromptStoreError, write_texts
from gtsvj_reward.training.closed_form import Contrast, FeatureCache, refit
from gtsvj_reward.training.closed_form.features import Shown, content_id, shown_id
from gtsvj_reward.training.processes import from_main
from tests.alignment.tiny import SIZE, TEXTS, tiny_pipeline
from tests.pipelines import cogvideox_image, frozen
from tests.ranks import on_unix, run_ranks
from tests.tiny import clips

SETTINGS = {
    "num_frames": 9, "height": 32, "width": 48, "num_inference_steps": 2, "iterations": 3,
    "prompts_per_iteration": 2, "clips_per_prompt": 1, "evaluation_clips": 2, "samples": 0,
    "evaluate_every": 3, "save_every": 1, "guard_patience": 0, "refit_every": 1, "refit_clips": 4,
    "device": "cpu", "learning_rate": 0.05,
}  # fmt: skip


def real(count, seed=11):
    """Clips that move little, which a random generator does not make."""
    latents = clips(count, height=4, width=6, seed=seed)[:, :1].expand(-1, 3, -1, -1, -1)
    return latents + 0.1 * clips(count, 3, 4, 6, seed=seed + 1)


@pytest.fixture(scope="module")
def start():
    return discriminator()


def discriminator():
    """A discriminator on the weights of the tiny pipeline."""
    pipe = tiny_pipeline()
    space = LatentSpace.from_pipeline(pipe)
    config = JudgeConfig(base_model="tiny", latent_space=space, readout="moments", lora_rank=0)
    judge = VideoJudge.from_transformer(pipe.transformer, config)
    pairs = [
        Contrast(lambda a=a: a, lambda b=b: b, (str(index), str(index)))
        for index, (a, b) in enumerate(zip(real(8), real(8).flip(1).roll(1, 3), strict=True))
    ]
    return refit(judge, FeatureCache(judge), contrast=pairs)


@pytest.fixture(scope="module")
def positives(tmp_path_factory, start):
    folder = tmp_path_factory.mktemp("positives")
    for index, latents in enumerate(real(6, seed=31)):
        clip = LatentClip(latents=latents, space=start.config.latent_space, fps=8.0, num_frames=9)
        save_clip(folder / f"{index}.safetensors", clip)
    return folder


def unchecked(judge, **settings):
    """Random latents are not spread as real ones are."""
    return GTSVJReward(judge, check_statistics=False, **settings)


def made(start, positives, folder, **changes):
    given = {**SETTINGS, "refit_positives": positives and str(positives), **changes}
    arguments = AlignArguments(output_dir=str(folder), **given)
    policy = Policy(tiny_pipeline(), arguments.size, guidance=1.0, rank=2)
    sampler = Sampler(arguments, policy, TEXTS, Accelerator(cpu=True))
    refits = None
    if arguments.refit_every:
        refits = Refits(sampler, start, rebuild=unchecked)
    return AlignmentRun(sampler, unchecked(start), eval_metrics={}, refits=refits)


def train(run):
    for iteration in run.iterations():
        texts, keys = run.sampler.clips(iteration)
        latents = differentiable_sample(run.policy, run.policy.encode(texts), keys, steps=2, last=1)
        rewards = run.scores(latents, texts)
        run.backward(-rewards.mean())
        run.finish([{"reward": rewards.detach()}, {"grad_norm": run.update()}])
    return run


def adapter(folder):
    return load_file(sorted((folder / "checkpoints").iterdir())[-1] / "adapter.safetensors")


def assert_same_runs(one, other):
    assert read_journal(one / "metrics.jsonl") == read_journal(other / "metrics.jsonl")
    for name, value in adapter(one).items():
        assert torch.equal(value, adapter(other)[name]), name


@pytest.fixture(scope="module")
def whole(start, positives, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train(made(start, positives, folder))
    return folder


def test_every_refit_is_a_checkpoint_that_names_its_clips(whole, start):
    names = [path.name for path in sorted((whole / "judges").iterdir())]
    assert names == ["iteration-000001", "iteration-000002", "iteration-000003"]
    record = json.loads((whole / "judges" / names[1] / "refit.json").read_text())
    assert sorted(record["clips"]) == [f"00000{i}-000{j}" for i in (1, 2) for j in range(4)]
    assert record["clips not in the fit"] == {}
    assert sorted(record["positives"]) == [f"{index}" for index in range(6)]
    assert (record["comparisons"], record["ratings"]) == (0, 0)
    assert len(LatentFolder(whole / "clips")) == 12
    entries = read_journal(whole / "metrics.jsonl")
    assert [e["refit_clips"] for e in entries if "refit_clips" in e] == [4, 8, 4 + 6]
    # the checkup before training, one after each refit, and the last
    assert [e["iteration"] for e in entries if "proxy" in e] == [0, 1, 2, 3, 3]


def test_each_of_the_newest_clips_is_a_negative_once(whole, start, positives):
    """Of 8 older ones as many as positives; three perturbations of each of the 6 positives."""
    refits = made(start, positives, whole).refits
    own = refits.negatives()
    kept = {content_id(clip.latents) for clip in LatentFolder(positives)}
    sides = [[content_id(load()) for load in (pair.positive, pair.negative)]
             for pair in refits.contrast(own)]  # fmt: skip
    assert {positive for positive, _ in sides} == kept
    times = Counter(negative for _, negative in sides)
    clips = {
        path.stem: content_id(load_clip(path).latents) for path in (whole / "clips").glob("*.s*")
    }
    assert len(set(clips.values())) == 12
    assert [times[clips[f"000003-000{index}"]] for index in range(4)] == [1, 1, 1, 1]
    older = {name: times[clips[name]] for name in clips if not name.startswith("000003")}
    assert sorted(older.values()) == [0, 0, 1, 1, 1, 1, 1, 1]
    assert len(sides) == 6 * 3 + 4 + 6
    record = json.loads((whole / "judges" / "iteration-000003" / "refit.json").read_text())
    assert record["clips"] == {name: clips[name] for name in clips if times[clips[name]]}
    assert set(record["positives"].values()) == kept


def test_an_existing_refit_of_other_positives_is_not_reused(start, positives, tmp_path):
    shutil.copytree(positives, tmp_path / "real")
    file = tmp_path / "run" / "judges" / "iteration-000001" / "refit.json"
    written = []
    for change in (False, False, True):
        if change:
            shutil.copy(tmp_path / "real" / "0.safetensors", tmp_path / "real" / "5.safetensors")
        made(start, tmp_path / "real", tmp_path / "run").refits.refit(1)
        written.append((file.stat().st_mtime_ns, json.loads(file.read_text())["positives"]))
    assert written[0] == written[1]
    assert written[2][1] == {**written[0][1], "5": written[0][1]["0"]} != written[0][1]


def test_a_run_that_was_cut_off_goes_on_to_the_bit(whole, start, positives, tmp_path):
    folder = tmp_path / "parts"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoints" / "iteration-000003")
    shutil.rmtree(folder / "judges" / "iteration-000003")
    run = made(start, positives, folder)
    assert run.done == 2
    assert run.reward.judge is not start
    train(run)
    assert_same_runs(whole, folder)


def test_a_refit_that_fails_loses_no_iteration_and_is_repeated(whole, start, positives, tmp_path):
    """It fails for a table that was removed, or is cut off after its last entry in the log."""
    folder = tmp_path / "parts"
    shutil.copytree(whole / "clips", folder / "clips")
    table = label(tmp_path, [("000001-0000", "000001-0001", 1)])
    run = made(start, positives, folder, **table, save_every=100)
    Path(table["refit_comparisons"]).unlink()
    with pytest.raises(FileNotFoundError, match=r"comparisons\.csv"):
        train(run)
    entries = (whole / "metrics.jsonl").read_text().splitlines()[:4]
    assert ["refit_clips" in entry for entry in entries] == [False, False, True, False]
    (folder / "metrics.jsonl").write_text("\n".join(entries) + "\n")
    again = made(start, positives, folder)
    assert again.done == 1
    assert again.resumption() == "going on after iteration 1"
    assert_same_runs(whole, train(again).arguments.folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"refit_positives": "typo"}, "`refit_positives`: typo does not exist"),
        ({"refit_comparisons": "typo.csv", "refit_latents": "."}, "`refit_comparisons`: typo.csv"),
        ({"refit_comparisons": "pyproject.toml", "refit_latents": "typo"}, "`refit_latents`: typo"),
    ],
)
def test_files_that_are_not_there_are_rejected_when_the_run_starts(
    start, positives, tmp_path, changes, words
):
    with pytest.raises(FileNotFoundError, match=words):
        made(start, positives, tmp_path, **changes)


def test_sources_that_cannot_make_the_judge_are_rejected_when_the_run_starts(
    whole, start, positives, tmp_path
):
    with pytest.raises(ValueError, match=r"aspects` \['clear'\], which the judge loses"):
        made(start, positives, tmp_path, aspects=["clear"])
    table = label(tmp_path, [("a", "b", 1)])
    for name in "ab":
        clip = load_clip(whole / "clips" / "000001-0000.safetensors")
        other = replace(clip, space=replace(clip.space, scaling_factor=2.0), source=name)
        save_clip(tmp_path / "parts" / "clips" / f"{name}.safetensors", other)
    with pytest.raises(LatentSpaceError, match="the clips of `refit_latents` are of"):
        made(start, positives, tmp_path, **table)


def test_the_average_of_the_adapter_is_what_is_measured_saved_and_gone_on_with(
    start, positives, tmp_path
):
    settings = {"ema_decay": 0.5, "refit_every": 0, "refit_positives": None}
    run = train(made(start, None, tmp_path, **settings))
    parts = {name: value.clone() for name, value in run.average.values.items()}
    saved = load_file(tmp_path / "lora" / "pytorch_lora_weights.safetensors")
    with run.average.in_place():
        averaged = {name: value.clone() for name, value in run.policy.adapter().items()}
        for name, value in averaged.items():
            assert torch.equal(saved[f"transformer.{name}"], value), name
        texts, latents = run.evaluation.clips()
    assert any(not torch.equal(value, averaged[n]) for n, value in run.policy.adapter().items())
    found = run.evaluation.measure(latents, texts).proxy
    torch.testing.assert_close(found, run.guards.checkups[-1].proxy)
    again = made(start, None, tmp_path, **settings)
    assert again.done == 3
    assert all(torch.equal(value, parts[n]) for n, value in again.average.values.items())


def test_a_refit_that_was_made_is_taken_even_if_labels_have_come_since(
    whole, start, positives, tmp_path
):
    folder = tmp_path / "parts"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoints" / "iteration-000003")
    table = label(tmp_path, [("000001-0000", "000001-0001", 1)])
    train(made(start, positives, folder, **table))
    assert_same_runs(whole, folder)


def label(folder, rows, name="comparisons.csv"):
    """A table of comparisons as `gtsvj label` writes it, of clips of the run in `parts`."""
    path = folder / name
    lines = [f"{a}.mp4,{b}.mp4,{label}" for a, b, label in rows]
    path.write_text("\n".join(["video_a,video_b,label", *lines]) + "\n")
    return {"refit_comparisons": str(path), "refit_latents": str(folder / "parts" / "clips")}


def test_the_loss_of_stage_1_on_the_policys_clips_falls(whole, start, positives):
    """Eq. 4 with real clips that no refit has seen; its least is -1 / (2 beta) = -2.5."""
    refits = made(start, positives, whole).refits
    own = torch.stack([clip.latents for clip in LatentFolder(whole / "clips")])
    before, after = (
        contrastive_loss(-reward(real(12, 51), normalize=False), -reward(own, normalize=False))
        for reward in (unchecked(start), refits.reward())
    )
    assert after.mean() < before.mean() - 1
    assert after.mean() < -1


def test_labels_are_merged_in_and_the_judge_then_knows_how_sure_it_is(
    whole, start, positives, tmp_path
):
    folder = tmp_path / "parts"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "judges" / "iteration-000003")
    shutil.rmtree(folder / "checkpoints" / "iteration-000003")
    names = [f"00000{i}-000{j}" for i in (1, 2) for j in range(4)]
    means = {
        name: load_clip(folder / "clips" / f"{name}.safetensors").latents.mean() for name in names
    }
    rows = [(a, b, 1 if means[a] > means[b] else -1) for a, b in pairwise(names)]
    run = made(start, positives, folder, **label(tmp_path, rows))
    assert run.reward.judge.config.stage == "discriminator"
    train(run)
    judge = run.reward.judge
    assert judge.config.stage == "preference"
    record = json.loads((folder / "judges" / "iteration-000003" / "refit.json").read_text())
    assert record["comparisons"] == 7
    sure, unsure = (unchecked(judge, pessimism=k).details(real(2)) for k in (0.0, 2.0))
    torch.testing.assert_close(unsure.rewards, sure.rewards - 2 * sure.uncertainty)
    # now it can only be refitted with labels: a checkpoint keeps none
    with pytest.raises(ValueError, match="'preference', and 0 comparisons and 0 ratings make one"):
        made(judge, positives, tmp_path / "other")


def refit_of_one_process(folder, tables, words):
    """Refit to the table that this process finds, then to none where the main process has none."""
    rank = int(words[0])
    PartialState(cpu=True, timeout=timedelta(seconds=60))  # a process that waits alone fails soon
    table = label(folder, tables[rank], f"{rank}.csv")
    refits = made(discriminator(), None, folder / "parts", **table).refits
    assert refits.refit(1)["refit_labels"] == len(tables[0])
    if rank == 0:
        (folder / "0.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"0\.csv"):
        refits.refit(2)
    with pytest.raises(KeyError, match="unknown"):
        from_main(lambda: {}["unknown"])
    with pytest.raises(OSError, match="no clip 1"):
        refits.cache.read([partial(only_the_first, number) for number in range(2)], "clips")


def only_the_first(number):
    if number:
        raise OSError(f"no clip {number}")
    return real(1)[0]


@on_unix
def test_all_processes_refit_to_the_labels_that_the_main_process_reads(positives, tmp_path):
    """In the second process further labels have come, one of them of a clip unknown to it."""
    names = [f"000001-000{index}" for index in range(4)]
    rows = [(a, b, (1, -1)[index % 2]) for index, (a, b) in enumerate(combinations(names, 2))]
    one = tmp_path / "one"
    one.mkdir()
    for folder in (one, tmp_path):  # people have labelled them
        made(discriminator(), positives, folder / "parts").refits.clips.make([1])
    tables = [rows, [rows[3], *rows, ("unknown", names[0], 1)]]
    call = partial(refit_of_one_process, tmp_path, tables)
    status, logs = run_ranks(2, lambda rank: [rank], tmp_path, call=call)
    assert status == [0, 0], logs
    made(discriminator(), None, one / "parts", **label(one, rows)).refits.refit(1)
    expected, found = (
        load_file(folder / "parts" / "judges" / "iteration-000001" / "head.safetensors")
        for folder in (one, tmp_path)
    )
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_the_hash_of_a_table_is_that_of_what_was_read(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("one label")

    def read(path):
        text = Path(path).read_text()
        table.write_text("two labels")  # people go on while it is read
        return text

    assert hashed(str(table), read) == ("two labels", sha256(b"two labels").hexdigest())


def test_comparisons_without_the_label_that_counts_are_counted(whole, start, tmp_path, caplog):
    table = tmp_path / "comparisons.csv"
    rows = ["video_a,video_b,label,label_motion", "000001-0000,000001-0001,A,B"]
    rows += ["000001-0001,000001-0002,,A", "000001-0002,000001-0003,,"]
    table.write_text("\n".join(rows) + "\n")
    arguments = AlignArguments(
        output_dir=str(tmp_path), refit_every=1, refit_comparisons=str(table),
        refit_latents=str(whole / "clips"),
    )  # fmt: skip
    labels = read_labels(arguments, start.config)
    assert [each.label for each in labels.comparisons] == [1]
    assert labels.record()["left out"] == {f"{table}: no label 'overall'": 2}
    assert "no label 'overall': 2 rows left out of the refit" in caplog.text
    table.write_text("\n".join([rows[0], *rows[2:]]) + "\n")
    with pytest.raises(ValueError, match=r"none of 2 comparisons .* \['motion', 'overall'\]"):
        read_labels(arguments, start.config)


def test_empty_cells_of_ratings_are_counted(whole, start, tmp_path, caplog):
    table = tmp_path / "ratings.csv"
    table.write_text("video,clear\n000001-0000,3\n000001-0001,\n000001-0002,4\n")
    arguments = AlignArguments(
        output_dir=str(tmp_path), refit_every=1, refit_ratings=str(table),
        refit_latents=str(whole / "clips"),
    )  # fmt: skip
    clear = Aspect(name="clear", low=1, high=5)
    config = replace(start.config, stage="aspects", aspects=(clear,), latent_statistics=None)
    labels = read_labels(arguments, config)
    assert labels.record()["left out"] == {f"{table}: `clear` is empty": 1}
    assert "`clear` is empty: 1 rows left out of the refit" in caplog.text


def of_prompts(start):
    """A judge that reads prompts, not yet fitted."""
    config = replace(start.config, text_input="prompt", prompt_dropout=0.1)
    pipe = tiny_pipeline()
    return VideoJudge.from_transformer(pipe.transformer, config, scheduler=pipe.scheduler)


def test_a_judge_of_prompts_reads_each_clip_under_its_own(start, positives, tmp_path):
    """What the cache has read is what is shown: latents and the policy's words of the prompt."""
    shutil.copytree(positives, tmp_path / "real")
    for index, path in enumerate(sorted((tmp_path / "real").iterdir())):
        save_clip(path, replace(load_clip(path), source=f"{index}.mp4"))
    reads, folder = of_prompts(start), tmp_path / "run"
    with pytest.raises(PromptStoreError, match="6 of 6 clips have none stored beside them"):
        made(reads, tmp_path / "real", folder)
    said = {f"{index}.mp4": TEXTS[index % 2] for index in range(6)}
    policy = Policy(tiny_pipeline(), SIZE, guidance=1.0, rank=2)
    policy.encode(TEXTS)
    write_texts(tmp_path / "real", list(said), said, PolicyText(policy))
    run = made(reads, tmp_path / "real", folder)
    run.refits.refit(1)
    judge = run.refits.reward().judge
    assert judge.config.text_input == "prompt"
    assert judge.config.training["energy: pairs"] == 6 * 3 + 4 + 6 * 4  # perturbed; made; swapped
    known = run.refits.cache.known
    for clip in [*LatentFolder(tmp_path / "real"), *LatentFolder(folder / "clips")]:
        under = {text: shown_id(Shown(clip.latents, PolicyText(policy)([text]))) for text in TEXTS}
        if clip.source in said:  # swapped: it was read under both prompts
            assert set(under.values()) <= known.keys()
        else:
            wrong = next(text for text in TEXTS if text != clip.settings["prompt"])
            assert under[wrong] not in known
    own = LatentFolder(folder / "clips")
    assert any(
        shown_id(Shown(clip.latents, PolicyText(policy)([clip.settings["prompt"]]))) in known
        for clip in own
    )
    table = label(tmp_path, [("000001-0000", "000001-0001", 1), ("000001-0002", "000001-0003", -1)])
    arguments = replace(
        run.arguments, **{**table, "refit_latents": str(folder / "clips"), "refit_every": 1}
    )
    compared = read_labels(arguments, reads.config).comparisons
    assert [type(each.first()) for each in compared] == [type(each.second()) for each in compared]
    assert isinstance(compared[0].first(), Shown)
    infos = LatentFolder(folder / "clips").infos
    words = [PolicyText(policy)([info.settings["prompt"]]).embeds for info in infos[:2]]
    torch.testing.assert_close(compared[0].first().text.embeds, words[0])
    torch.testing.assert_close(compared[0].second().text.embeds, words[1])


def test_a_live_judge_is_refused(start, positives, tmp_path):
    pipe = tiny_pipeline()
    Policy(pipe, SIZE, guidance=1.0, rank=2)
    live = VideoJudge(LiveBackbone(pipe.transformer), start.config, stored_text=None, seed=0)
    with pytest.raises(ValueError, match="does not support a live judge"):
        made(live, positives, tmp_path)


@pytest.mark.parametrize("refit_every", [0, 1])
def test_a_judge_of_images_is_refused(start, positives, tmp_path, refit_every):
    pipe = frozen(cogvideox_image)
    config = replace(start.config, image_input="image")
    sees = VideoJudge.from_transformer(pipe.transformer, config, scheduler=pipe.scheduler)
    given = positives if refit_every else None
    with pytest.raises(ValueError, match=r"the judge of .* reads reference images .* of the same"):
        made(sees, given, tmp_path, refit_every=refit_every)


def test_ratings_for_a_judge_without_aspects_are_refused(start, positives, tmp_path):
    (tmp_path / "a.csv").touch()
    given = {"refit_ratings": str(tmp_path / "a.csv"), "refit_latents": str(tmp_path)}
    with pytest.raises(ValueError, match="`refit_ratings` needs a judge with aspects"):
        made(start, positives, tmp_path / "run", **given)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"refit_every": -1}, "refit_every"),
        ({"refit_clips": 0}, "refit_clips"),
        ({"refit_every": 2}, "needs something to refit to"),
        ({"refit_positives": "a"}, "needs `refit_every`"),
        ({"refit_every": 2, "refit_comparisons": "a"}, "go together with `refit_latents`"),
        ({"refit_every": 2, "refit_positives": "a", "refit_latents": "b"}, "go together"),
    ],
)
def test_settings_of_refits_are_checked(changes, words):
    with pytest.raises(ValueError, match=words):
        AlignArguments(output_dir="a", **changes)
