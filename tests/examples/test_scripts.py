"""Each script: what it leaves, that it learns, that it resumes, that two processes are one."""

import importlib
import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from gtsvj_reward import LatentSpace
from gtsvj_reward.alignment import AlignArguments
from gtsvj_reward.alignment.journal import read_journal
from gtsvj_reward.assets import folder_of
from gtsvj_reward.backbones import LiveBackbone
from gtsvj_reward.judge import CheckpointError, OtherBaseError
from gtsvj_reward.latents.store import LatentClip, save_clip
from gtsvj_reward.toy.pipeline import FLOW, PIPELINE, load_pipeline
from tests.examples.scripts import SMALL
from tests.examples.tiny_runs import gradients_of_all_scripts, save_gradients, tiny_run
from tests.ranks import on_unix, run_ranks

OWN = {
    "ddpo": ["--epochs", "2", "--kl_weight", "0.1"],
    "dpo": ["--min_margin", "0", "--updates", "2"],
    "reward_gradients": ["--backprop_steps", "1", "2", "--drift_weight", "1"],
}


def run(script, folder, *changes):
    """Run a script's `main` in this process."""
    main = importlib.import_module(script).main
    return main([*SMALL, *OWN[script], "--output_dir", str(folder), *changes])


def adapter(folder):
    newest = sorted((folder / "checkpoints").iterdir())[-1]
    return load_file(newest / "adapter.safetensors")


@pytest.mark.parametrize("script", OWN)
def test_a_run_leaves_everything_and_resumes_to_the_bit(script, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(script, whole, "--samples", "1")
    # Interrupted in the second iteration: its checkpoint was never written, its logs were.
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints" / "iteration-000002")
    with (parts / "metrics.jsonl").open("a") as opened:
        opened.write('{"iteration": 2, "reward": 99}\n{"iteration": 3, "rew')
    run(script, parts)
    for name, value in adapter(whole).items():
        assert torch.equal(value, adapter(parts)[name]), name
    assert read_journal(whole / "metrics.jsonl") == read_journal(parts / "metrics.jsonl")
    start, last = (adapter_norm(load_file(f)) for f in checkpoints(whole))
    assert start != last
    entries = read_journal(whole / "metrics.jsonl")
    assert [e["iteration"] for e in entries if "proxy" in e] == [0, 2]
    assert {"proxy", "eval/caption", "roughness"} < entries[0].keys()
    assert all(e["grad_norm"] > 0 for e in entries if "grad_norm" in e)
    distance = "kl" if script == "ddpo" else "drift"
    assert [e[distance] > 0 for e in entries if distance in e][-1]
    assert (whole / "lora" / "pytorch_lora_weights.safetensors").exists()
    assert (whole / "curves.png").exists()
    assert (whole / "samples" / "iteration-000002.png").exists()


def labelled(folder):
    """Flags of a run whose moment judge is refitted to some labels after each iteration."""
    space, rows = LatentSpace.from_pipeline(load_pipeline()), ["video_a,video_b,label"]
    for index in range(7):
        latents = torch.randn(5, 16, 8, 8, generator=torch.Generator().manual_seed(index))
        clip = LatentClip(latents=latents, space=space, fps=8.0, num_frames=17, source=str(index))
        save_clip(folder / "latents" / f"{index}.safetensors", clip)
        rows.append(f"{index},{(index + 1) % 7},{1 if index % 3 else -1}")
    (folder / "comparisons.csv").write_text("\n".join(rows) + "\n")
    return ["--reward", "gtsvj-toy", "--pessimism", "0.5", "--refit_every", "1",
            "--refit_clips", "2", "--refit_comparisons", str(folder / "comparisons.csv"),
            "--refit_latents", str(folder / "latents")]  # fmt: skip


def checkpoints(folder):
    found = sorted((folder / "checkpoints").iterdir())
    assert [path.name for path in found] == ["iteration-000001", "iteration-000002"]
    return [path / "adapter.safetensors" for path in found]


def adapter_norm(tensors):
    return sum(value.double().square().sum().item() for value in tensors.values())


def test_the_first_update_of_ddpo_has_ratio_1_and_later_ones_do_not(tmp_path):
    found = run("ddpo", tmp_path / "a", "--iterations", "1", "--epochs", "1")
    (entry,) = [e for e in found.journal.entries if "ratio_error" in e]
    assert entry["ratio_error"] == 0
    assert entry["kl"] == 0
    again = run("ddpo", tmp_path / "b", "--iterations", "1", "--updates_per_epoch", "2")
    (entry,) = [e for e in again.journal.entries if "ratio_error" in e]
    assert entry["ratio_error"] > 0
    assert entry["kl"] > 0


def test_the_variants_run(tmp_path, monkeypatch):
    run("ddpo", tmp_path / "grpo", "--iterations", "1", "--advantages", "group")
    # Alone, clips predicted from pure noise for these prompts are not spread as clean latents.
    (tmp_path / "prompts.txt").write_text("one blue triangle bouncing\none blue triangle falling\n")
    run("reward_gradients", tmp_path / "refl", "--iterations", "1", "--method", "refl",
        "--refl_steps", "0", "--batch_size", "1", "--prompts", str(tmp_path / "prompts.txt"),
        "--reward", "gtsvj-toy", "--report_to", "tensorboard")  # fmt: skip
    assert list((tmp_path / "refl").rglob("events.out.tfevents.*"))
    (tmp_path / "quiet_reward.py").write_text(
        "def quiet(latents, **given):\n    return -latents.diff(dim=1).abs().flatten(1).mean(1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = run("ddpo", tmp_path / "sum", "--iterations", "1", "--advantages", "group",
                "--reward", "gtsvj-toy", "prompt-score=10", "quiet_reward:quiet=0.5",
                "--dense_rewards", "--clips_per_prompt", "4", "--keep_clips", "2",
                "--no_measure_kl", "--kl_weight", "0", "--window", "1")  # fmt: skip
    assert found.reward.weights == {"gtsvj-toy": 1, "prompt-score": 10, "quiet_reward:quiet": 0.5}
    assert "kl" not in found.journal.entries[1]
    for name in ("grpo", "refl"):
        assert (tmp_path / name / "curves.png").exists()


def test_dpo_trains_on_stored_pairs_and_samples_nothing_for_it(tmp_path):
    space = LatentSpace.from_pipeline(load_pipeline())
    for index in range(3):
        latents = torch.randn(5, 16, 8, 8, generator=torch.Generator().manual_seed(index))
        clip = LatentClip(latents=latents, space=space, fps=8.0, num_frames=17)
        save_clip(tmp_path / "latents" / f"{index}.safetensors", clip)
    row = {"prompt": "one red circle falling", "video_a": "0.safetensors", "label": 1}
    rows = [{**row, "video_b": f"{index}.safetensors"} for index in (1, 2)]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = run("dpo", tmp_path / "run", "--iterations", "1", "--pairs", str(pairs),
                "--latents", str(tmp_path / "latents"))  # fmt: skip
    (entry,) = [e for e in found.journal.entries if "loss" in e]
    assert "reward" not in entry
    assert entry["loss"] != pytest.approx(math.log(2), abs=1e-6)  # the second update has moved
    with pytest.raises(ValueError, match="go together"):
        run("dpo", tmp_path / "other", "--pairs", str(pairs))


def test_the_guards_know_how_many_checkups_a_run_plans(tmp_path):
    _, made = tiny_run(AlignArguments, tmp_path, iterations=7, evaluate_every=2)
    assert made.guards.looks == 4  # after iterations 2, 4, 6 and 7


def test_other_settings_prompts_or_another_judge_do_not_go_on_with_a_run(tmp_path):
    prompts, judge = tmp_path / "prompts.txt", tmp_path / "judge"
    texts = ["one blue triangle bouncing", "one blue triangle falling", "one red circle falling"]
    prompts.write_text("\n".join(texts))
    shutil.copytree(folder_of("gtsvj-toy"), judge)
    given = ("--prompts", str(prompts), "--reward", str(judge), "--iterations", "1")
    run("reward_gradients", tmp_path / "run", *given)
    moved = prompts.rename(tmp_path / "moved.txt")
    given = ("--prompts", str(moved), *given[2:])
    assert run("reward_gradients", tmp_path / "run", *given).done == 1  # the same prompts
    with pytest.raises(
        ValueError, match=r"other settings: `learning_rate` was .*, is now 0\.5\. C"
    ):
        run("reward_gradients", tmp_path / "run", *given, "--learning_rate", "0.5")
    moved.write_text("\n".join(texts[:2]))
    with pytest.raises(ValueError, match=r"other settings: `prompts` was .*…, is now"):
        run("reward_gradients", tmp_path / "run", *given)
    moved.write_text("\n".join(texts))
    head = load_file(judge / "head.safetensors")
    first = next(iter(head))
    save_file({**head, first: head[first] * 1.001}, judge / "head.safetensors")
    with pytest.raises(ValueError, match="other settings: `weights of reward` was"):
        run("reward_gradients", tmp_path / "run", *given)


def test_a_run_that_the_guards_stopped_goes_on_only_without_them(tmp_path, capsys):
    made = run("reward_gradients", tmp_path, "--iterations", "1")
    assert made.resumption().startswith("nothing to do: the run has made its 1 `iterations`")
    state = tmp_path / "checkpoints" / "iteration-000001" / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "stopped": "caption fell"}))
    assert run("reward_gradients", tmp_path).done == 1
    assert "nothing to do: the guards stopped" in capsys.readouterr().err
    assert run("reward_gradients", tmp_path, "--guard_patience", "0").done == 2


def in_two_processes(call, argument, folder):
    """Call a function with text in two processes that know one another."""
    status, logs = run_ranks(2, lambda rank: [argument], folder, call=call, patience=500)
    assert status == [0, 0], "\n".join(log[-3000:] for log in logs)


def run_scripts(words):
    """Run scripts one after another: JSON of script -> command line."""
    for script, argv in json.loads(words[0]).items():
        importlib.import_module(script).main(argv)


@pytest.mark.slow
@on_unix
def test_two_processes_do_what_one_does(tmp_path):
    refitted = {"reward_gradients": labelled(tmp_path)}
    settings = {
        script: [*SMALL, *own, *refitted.get(script, []), "--output_dir", str(folder / script)]
        for folder in [tmp_path / "two"]
        for script, own in OWN.items()
    }
    in_two_processes(run_scripts, json.dumps(settings), tmp_path)
    for script in OWN:
        made = run(script, tmp_path / "one" / script, *refitted.get(script, []))
        assert (made.refits is not None) == (script in refitted)
        one, two = adapter(tmp_path / "one" / script), adapter(tmp_path / "two" / script)
        for name, value in one.items():
            torch.testing.assert_close(value, two[name], atol=2e-4, rtol=0)
        first = read_journal(tmp_path / "one" / script / "metrics.jsonl")[0]
        other = read_journal(tmp_path / "two" / script / "metrics.jsonl")[0]
        assert first["proxy"] == pytest.approx(other["proxy"], abs=1e-4)


@on_unix
def test_two_processes_have_the_gradients_and_means_of_one(tmp_path):
    """With batches and pairs that two processes share unevenly; AdamW would hide a factor."""
    in_two_processes(save_gradients, tmp_path, tmp_path)
    two = load_file(tmp_path / "gradients.safetensors")
    one = gradients_of_all_scripts(tmp_path / "one")
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert value.abs().max() > 0 or name.endswith(("ratio_error", "clip_fraction")), name
        gap = (two[name] - value).norm()
        assert gap <= 1e-5 * value.norm() + 1e-6 * ("/" in name), (name, gap)


def test_judges_may_call_the_policy_itself():
    ddpo, shared = importlib.import_module("ddpo"), importlib.import_module("shared")
    given = ["--output_dir", "x", "--pretrained_model", PIPELINE, "--judge_weights"]
    latents = torch.randn(1, 5, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    scores = []
    for way in ("live", "shared"):
        found = shared.parse(ddpo.DDPOArguments, [*given, way])
        judge = shared.load_judge("gtsvj-toy", found, shared.load(found))
        judge.judge.backbone.gradient_checkpointing, judge.check_statistics = True, False
        assert isinstance(judge.judge.backbone, LiveBackbone) == (way == "live")
        scores.append(judge(latents))
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-5, atol=1e-5)
    given[3] = FLOW
    found = shared.parse(ddpo.DDPOArguments, [*given, "shared"])
    with pytest.raises(OtherBaseError, match=r"wants a Cog.* got a Wan.*--judge_weights own"):
        shared.load_judge("gtsvj-toy", found, shared.load(found))


def test_own_weights_are_advised_for_another_base_only(tmp_path):
    ddpo, shared = importlib.import_module("ddpo"), importlib.import_module("shared")
    given = ["--output_dir", "x", "--pretrained_model", PIPELINE, "--judge_weights", "shared"]
    found = shared.parse(ddpo.DDPOArguments, given)
    shutil.copytree(folder_of("gtsvj-toy"), tmp_path / "judge")
    (tmp_path / "judge" / "config.json").write_text("{")
    with pytest.raises(CheckpointError) as raised:
        shared.load_judge(str(tmp_path / "judge"), found, shared.load(found))
    assert "judge_weights" not in str(raised.value)


def test_settings_come_from_a_file_and_the_command_line_wins(tmp_path):
    ddpo, shared = importlib.import_module("ddpo"), importlib.import_module("shared")
    text = (
        "output_dir: x\nnum_frames: 49\neval_metrics: [path/to/another/judge]\n"
        "learning_rate: 3.0e-4\ngradient_checkpointing: true\nclips_per_prompt: 8\n"
    )
    file = tmp_path / "ddpo.yaml"
    file.write_text(text)
    found = shared.parse(ddpo.DDPOArguments, ["--config", str(file), "--clips_per_prompt", "4"])
    assert (found.num_frames, found.eval_metrics, found.learning_rate) == (
        49,
        ["path/to/another/judge"],
        3e-4,
    )
    assert found.gradient_checkpointing is True
    assert found.clips_per_prompt == 4, "the command line wins"
    file.write_text(text + "clips_for_prompt: 8\n")
    with pytest.raises(ValueError, match="clips_for_prompt"):
        shared.parse(ddpo.DDPOArguments, ["--config", str(file)])
