import json
import math
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

from gtsvj_reward import GTSVJReward
from gtsvj_reward.files import write_safetensors
from gtsvj_reward.judge import (
    Aspect,
    CheckpointError,
    Geometry,
    JudgeConfig,
    load_judge,
    read_config,
    save_judge,
)
from tests.backbones.family_wan import tiny_wan
from tests.ranks import on_unix, run_apart
from tests.test_files import full_disk
from tests.tiny import KINDS, clips, tiny_aspect_judge, tiny_judge, tiny_space, tiny_transformer


@pytest.fixture
def base(tmp_path):
    """The folder of the base transformer."""
    tiny_transformer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def saved(tmp_path, base):
    """A checkpoint of a trained judge."""
    save_judge(tiny_judge(base_model=str(base)), tmp_path / "judge")
    return tmp_path / "judge"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changes", [{}, {"depth": 3}, {"lora_rank": 0}, {"lora_placement": "all"}])
def test_saved_judges_load_bitwise(tmp_path, kind, changes):
    judge = tiny_judge(kind, **changes)
    save_judge(judge, tmp_path)
    loaded = load_judge(tmp_path, backbone=tiny_transformer(kind))
    assert torch.equal(loaded.energies(clips()), judge.energies(clips()))
    assert loaded.config == judge.config
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_loading_does_not_follow_the_default_dtype(tmp_path):
    """Set to bfloat16, as some trainers do, it must not round what the files hold."""
    tiny_transformer().save_pretrained(tmp_path / "base")
    judge = tiny_aspect_judge(stage="preference", base_model=str(tmp_path / "base"))
    save_judge(judge, tmp_path / "judge")
    expected = judge(clips()).scores
    latents = clips()
    torch.set_default_dtype(torch.bfloat16)
    try:
        loaded = load_judge(tmp_path / "judge")
        assert torch.get_default_dtype() == torch.bfloat16, "it is the caller's"
        there = loaded(latents).scores
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(there, expected)
    assert torch.equal(loaded(clips()).scores, expected)


def test_stored_text_is_part_of_the_checkpoint(tmp_path):
    from gtsvj_reward.judge import VideoJudge

    config = JudgeConfig(base_model="tiny", latent_space=tiny_space(), text_input="stored")
    text = torch.randn(6, 8)
    judge = VideoJudge.from_transformer(tiny_transformer(), config, stored_text=text)
    save_judge(judge, tmp_path)
    loaded = load_judge(tmp_path, backbone=tiny_transformer())
    assert torch.equal(loaded.stored_text, text)
    assert torch.equal(loaded.energies(clips()), judge.energies(clips()))


def score_file(judge, latents, out):
    """The program of a new process."""
    scores = GTSVJReward.from_pretrained(judge)(load_file(latents)["x"])
    save_file({"scores": scores.detach()}, out)


@on_unix
def test_a_new_process_scores_exactly_the_same(saved):
    source, result = saved / "latents.safetensors", saved / "scores.safetensors"
    save_file({"x": clips(4)}, source)
    assert run_apart([partial(score_file, saved, source, result)]) == [0]
    torch.set_num_threads(1)  # as there
    assert torch.equal(load_file(result)["scores"], GTSVJReward.from_pretrained(saved)(clips(4)))


def test_the_base_is_found_by_path_beside_the_checkpoint_or_by_argument(saved, base, tmp_path):
    expected = load_judge(saved).energies(clips())
    base.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match="neither a local folder nor a hub id"):
        load_judge(saved)
    assert torch.equal(load_judge(saved, base_model=tmp_path / "moved").energies(clips()), expected)
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "base_model": "../moved"}))
    assert torch.equal(load_judge(saved).energies(clips()), expected)


def test_half_precision_bases_are_the_same_base(saved):
    exact, half = load_judge(saved), load_judge(saved, dtype=torch.bfloat16)
    assert {t.dtype for _, t in half.backbone.base_tensors()} == {torch.bfloat16}
    assert {p.dtype for n, p in half.named_parameters() if "lora" in n or "head" in n} == {
        torch.float32
    }
    energies = half.energies(clips())
    assert energies.dtype == torch.float32
    assert 0 < (energies - exact.energies(clips())).abs().max() < 0.1
    save_judge(half, saved)
    assert read_config(saved) == exact.config


def test_a_checkpoint_is_loaded_in_the_dtype_it_was_trained_in(tmp_path, base):
    judge = tiny_judge(transformer=tiny_transformer().bfloat16(), base_model=str(base))
    save_judge(judge, tmp_path / "judge")
    loaded = load_judge(tmp_path / "judge")  # the base lies on disk in float32
    assert loaded.config.base_dtype == "bfloat16"
    assert {t.dtype for _, t in loaded.backbone.base_tensors()} == {torch.bfloat16}
    assert torch.equal(loaded.energies(clips()), judge.energies(clips()))


def test_another_base_is_refused(saved, tmp_path):
    with pytest.raises(CheckpointError, match=r"other base weights.*`base_model=`"):
        load_judge(saved, backbone=tiny_transformer(seed=1))
    with pytest.raises(CheckpointError, match="other base weights"):
        load_judge(saved, backbone=tiny_transformer("5b"))
    # With fewer blocks than the judge reads: their number is not what is wrong.
    tiny_wan(layers=1).save_pretrained(tmp_path / "wan")
    with pytest.raises(CheckpointError, match=r"wants a CogVideoX.* got a Wan"):
        load_judge(saved, base_model=tmp_path / "wan")


def test_another_depth_is_refused(saved, base):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "depth": 3}))
    with pytest.raises(CheckpointError, match="other base weights"):
        load_judge(saved)


def test_an_adapter_of_another_depth_is_refused(saved, tmp_path):
    save_judge(tiny_judge(depth=2), tmp_path / "shallow")
    name = "adapter_model.safetensors"
    (saved / name).write_bytes((tmp_path / "shallow" / name).read_bytes())
    with pytest.raises(CheckpointError, match="another depth or LoRA placement"):
        load_judge(saved)


@pytest.mark.parametrize(
    ("change", "found"), [({"r": 4}, r"4, 8\.0"), ({"lora_alpha": 16}, "8, 16")]
)
def test_an_adapter_of_another_rank_or_alpha_is_refused(saved, change, found):
    file = saved / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CheckpointError, match=rf"rank and alpha \({found}\).*\(8, 8\.0\)"):
        load_judge(saved)


@pytest.mark.parametrize("name", ["head.safetensors", "adapter_model.safetensors"])
@pytest.mark.parametrize("fault", ["missing", "cut", "pickle", "extra", "lacking"])
def test_unsound_files_are_refused(saved, name, fault):
    file = saved / name
    content = file.read_bytes()
    tensors = {key: value.clone() for key, value in load_file(file).items()}  # not mapped
    first = sorted(tensors)[0]
    if fault == "missing":
        file.unlink()
    elif fault == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif fault == "pickle":
        torch.save(tensors, file)
    elif fault == "extra":
        save_file({**tensors, "head.more": torch.zeros(1)}, file)
    else:
        save_file({key: value for key, value in tensors.items() if key != first}, file)
    messages = {
        "missing": "no file",
        "cut": "cut short or damaged",
        "pickle": "looks like a pickle",
        "extra": "1 unexpected .*head.more",
        "lacking": f"1 tensors missing .*{first}",
    }
    expected = FileNotFoundError if fault == "missing" else CheckpointError
    with pytest.raises(expected, match=messages[fault]):
        load_judge(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("{}", "format_version is None"),
        ('{"format_version": 1, "bogus": 2}', r"unknown fields \['bogus'\], missing fields"),
        ("[]", "format_version is None"),
    ],
)
def test_configs_that_are_none_are_refused(saved, text, message):
    (saved / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        load_judge(saved)


SPACE = tiny_space().to_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward_std": math.inf}, "`reward_std` must be a finite number or null, got inf"),
        ({"reward_std": 1e-300}, "`reward_std` must be a number from 1e-30 to 1e\\+30, got 1e-300"),
        ({"reward_mean": math.nan}, "`reward_mean` must be a finite number or null, got nan"),
        ({"reward_std": 10**400}, "`reward_std` must be a finite number or null, got 1000"),
        ({"lora_rank": "8"}, "`lora_rank` must be a whole number, got '8'"),
        ({"depth": True}, "`depth` must be a whole number or null, got True"),
        ({"stage": "energy"}, "`stage` must be one of 'discriminator', 'aspects', 'preference'"),
        ({"aspects": 3}, "`aspects` must be a list of an object with name, low, high, got 3"),
        ({"aspects": ["clear"]}, "`aspects` must be a list of an object with name, low, high"),
        ({"geometry": {"fps": [8, 8]}}, "Geometry: unknown fields .*missing fields "),
        ({"training": []}, r"`training` must be an object, got \[\]"),
        ({"latent_space": 1}, "`latent_space` must be an object with id"),
        ({"latent_space": SPACE | {"channels": "4"}}, "`channels` must be a whole number, got '4'"),
    ],
)
def test_values_of_another_type_are_named(saved, changes, message):
    file = saved / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(CheckpointError, match=message):
        load_judge(saved)


def test_a_disk_that_is_full_keeps_the_judge_that_was_there(saved):
    before = load_judge(saved).energies(clips())
    files = sorted(saved.iterdir())
    smallest = min(file.stat().st_size for file in files)
    for free in (0, smallest + 1, max(file.stat().st_size for file in files) - 1):
        with full_disk(free), pytest.raises(OSError, match="large"):
            save_judge(tiny_judge(trained=False), saved)
        torch.testing.assert_close(load_judge(saved).energies(clips()), before, rtol=0, atol=0)
        assert sorted(saved.iterdir()) == files
    assert (tiny_judge(trained=False).energies(clips()) - before).abs().max() > 1e-3


def test_merged_judges_are_not_saved(tmp_path):
    judge = tiny_judge()
    judge.merge()
    with pytest.raises(CheckpointError, match="save it before merging"):
        save_judge(judge, tmp_path)


def test_judges_without_weights_are_not_saved(tmp_path):
    with pytest.raises(CheckpointError, match="no weights to save"):
        save_judge(tiny_judge(transformer=tiny_transformer().to("meta"), trained=False), tmp_path)


def test_configs_survive_json():
    config = JudgeConfig(
        base_model="owner/model",
        latent_space=tiny_space(patch_size_t=2),
        stage="preference",
        aspects=(Aspect(name="clear", low=1, high=5), Aspect(name="focus", low=1, high=3)),
        aspect_weights=(0.25, -1.5),
        score_bias=0.125,
        aspect_mean=(0.5, 0.75),
        aspect_covariance=((1.0, 0.5), (0.5, 2.0)),
        energy_width=16,
        geometry=Geometry(latent_frames=(3, 13), height=(8, 60), width=(8, 90), fps=(8.0, 16.0)),
        reward_mean=0.5,
        reward_std=2.0,
        reward_data="some clips",
        training={"steps": 3, "kinds": {"frame_drop": 0.18}},
    )
    assert JudgeConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lora_rank": -1}, "`lora_rank` must be >= 0"),
        ({"reward_mean": 1.0}, "given together"),
        ({"reward_mean": 1.0, "reward_std": 0.0}, "`reward_std` must be a number from"),
    ],
)
def test_bad_configs_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        JudgeConfig(base_model="tiny", latent_space=tiny_space(), **fields)


def test_the_card_states_what_matters(saved):
    card = (saved / "README.md").read_text()
    for part in ("Higher is better", "ignores the prompt", "mean", "tiny", "3-7 latent frames"):
        assert part in card
    assert "(raw - 0.25) / 0.5, measured on two clips" in card


@pytest.mark.parametrize("part", [".lora_A.", "head."])
def test_empty_tensors_are_no_checkpoint(tmp_path, part):
    """As DeepSpeed ZeRO-3 leaves parameters between their uses: of shape (0,)."""
    judge = tiny_judge()
    for name, parameter in judge.named_parameters():
        if part in name:
            parameter.data = torch.empty(0)
    with pytest.raises(CheckpointError, match=r"was not written: .* is empty.*DDP"):
        save_judge(judge, tmp_path)
    with pytest.raises(FileNotFoundError, match="no judge"):
        read_config(tmp_path)


def test_what_was_written_is_read_back_before_it_counts(tmp_path, monkeypatch):
    """A disk that keeps the header of a file, and other values."""
    judge = tiny_judge()

    def damaged(path, tensors, metadata):
        write_safetensors(path, {n: torch.zeros_like(t) for n, t in tensors.items()}, metadata)

    monkeypatch.setattr("gtsvj_reward.judge.checkpoint.write_safetensors", damaged)
    with pytest.raises(CheckpointError, match="does not hold what was saved"):
        save_judge(judge, tmp_path)
    assert not (tmp_path / "config.json").exists()
