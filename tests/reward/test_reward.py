import copy
import pickle

import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.latents.space import LatentSpace, LatentSpaceError
from gtsvj_reward.reward import GeometryError, NonFiniteError
from tests.backbones.test_cogvideox import pipeline_rotary
from tests.tiny import KINDS, clips, mixed_clips, tiny_judge, tiny_space, tiny_transformer


def reward_for(kind="2b", *, batch_size=8, **changes):
    """A reward around a tiny judge."""
    return GTSVJReward(tiny_judge(kind, **changes), batch_size=batch_size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_a_clips_score_does_not_depend_on_its_company(kind, batch_size):
    batch = mixed_clips()
    alone = torch.cat([reward_for(kind)(clip[None]) for clip in batch])
    together = reward_for(kind, batch_size=batch_size)(batch)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    backwards = reward_for(kind, batch_size=batch_size)(batch[::-1]).flip(0)
    torch.testing.assert_close(backwards, alone, rtol=0, atol=1e-5)
    assert alone.std() > 1e-3, "scores are all alike: the test proves nothing"


def test_scores_are_minus_the_mean_energy_normalised():
    judge, latents = tiny_judge(), clips(3)
    out = GTSVJReward(judge).details(latents)
    energies = judge.energies(latents)
    torch.testing.assert_close(out.raw, -energies.mean(1))
    torch.testing.assert_close(out.rewards, (out.raw - 0.25) / 0.5)
    torch.testing.assert_close(torch.stack(out.trajectory), -energies)
    torch.testing.assert_close(GTSVJReward(judge)(latents, normalize=False), out.raw)
    assert out.rewards.dtype == out.raw.dtype == torch.float32
    assert out.aspects == {}
    assert out.notes == (None, None, None)


def test_trajectories_of_mixed_clips_have_their_own_lengths_and_mean_to_raw():
    out = reward_for().details(mixed_clips())
    assert [len(steps) for steps in out.trajectory] == [3, 5, 3, 3, 5, 3]
    torch.testing.assert_close(torch.stack([steps.mean() for steps in out.trajectory]), out.raw)


def double_judge(kind, **changes):
    return tiny_judge(kind, **changes).double()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize(("kind", "tolerance"), [("2b", 1e-6), ("5b", 1e-3), ("1.5", 1e-3)])
def test_gradients_against_central_differences(kind, tolerance, depth, checkpointing):
    """Directional derivatives in float64; rotary models cast to float32 inside."""
    judge = double_judge(kind, depth=depth)
    judge.backbone.gradient_checkpointing = checkpointing
    latents = clips(2, 4, dtype=torch.float64).requires_grad_()
    judge.energies(latents).mean(1).sum().backward()
    step = 1e-5 if kind == "2b" else 3e-3
    for seed in range(3):
        direction = clips(2, 4, seed=10 + seed, dtype=torch.float64)
        with torch.no_grad():
            up, down = (
                judge.energies(latents + s * step * direction).mean(1).sum() for s in (1, -1)
            )
        expected = (latents.grad * direction).sum()
        torch.testing.assert_close((up - down) / (2 * step), expected, rtol=tolerance, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_autograd_through_the_unmodified_model_and_the_head(kind):
    transformer, head_of = tiny_transformer(kind), tiny_judge(kind, trained=False, depth=3)
    judge = tiny_judge(kind, transformer=transformer, trained=False, depth=3)
    ours = clips(2, 4).requires_grad_()
    GTSVJReward(judge)(ours, normalize=False).sum().backward()

    theirs = clips(2, 4).requires_grad_()
    seen = []
    transformer.transformer_blocks[2].register_forward_hook(lambda m, i, o: seen.append(o[0]))
    transformer(
        theirs,
        torch.zeros(2, 6, 8),
        torch.zeros(2),
        image_rotary_emb=pipeline_rotary(transformer, theirs),
    )
    steps = 2 if kind == "1.5" else 4
    (-head_of.head(seen[0].unflatten(1, (steps, -1))).mean(1)).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-9)
    assert ours.grad.abs().max() > 1e-4


def test_gradients_follow_the_callers_mode():
    reward, latents = reward_for(), clips().requires_grad_()
    scores = reward(latents)
    scores.sum().backward()
    assert latents.grad.abs().min() > 0
    with torch.no_grad():
        assert not reward(latents).requires_grad
    assert not reward(clips()).requires_grad
    assert not any(parameter.requires_grad for parameter in reward.judge.parameters())


def test_gradients_reach_each_clip_of_a_list_alone():
    batch = [clip.requires_grad_() for clip in mixed_clips()]
    reward_for(batch_size=2)(batch)[3].backward()
    assert [clip.grad is not None and bool(clip.grad.any()) for clip in batch] == [
        index == 3 for index in range(6)
    ]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (float("nan"), r"\[1\] has non-finite values"),
        (float("inf"), r"\[1\] has non-finite values"),
    ],
)
def test_non_finite_latents_are_named_and_refused(bad, message):
    latents = clips(3)
    latents[1, 2, 0, 3, 3] = bad
    with pytest.raises(LatentSpaceError, match=message):
        reward_for()(latents)
    with pytest.raises(LatentSpaceError, match=r"clip 1: .*non-finite"):
        reward_for()(list(latents))


def test_non_finite_scores_are_named_and_refused():
    judge = tiny_judge()
    judge.head.energy.weight.data.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match=r"score of clip 0 is .*2 of 2"):
        GTSVJReward(judge)(clips())


def test_foreign_spaces_are_refused_by_both_names():
    foreign = tiny_space(id="other")
    with pytest.raises(LatentSpaceError, match=r"`tiny`.*`other`"):
        reward_for()(clips(), space=foreign)
    assert torch.equal(reward_for()(clips(), space=tiny_space()), reward_for()(clips()))


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (clips().transpose(1, 2), r"looks like 'BCTHW'"),
        (clips()[0], r"rank 5.*needs a batch axis"),
        (torch.randn(1, 3, 16, 8, 12), r"expected 4 latent channels on axis 2"),
        (clips() * 20, r"standard deviation .*do not look like scaled"),
        (clips() * 0, r"standard deviation 0"),
        (torch.randn(0, 3, 4, 8, 12), r"no clips to score"),
    ],
)
def test_latents_of_a_wrong_form_are_refused(latents, message):
    with pytest.raises(ValueError, match=message):
        reward_for()(latents)
    with pytest.raises(ValueError, match="no clips to score"):
        reward_for()([])


def test_the_statistics_check_can_be_switched_off():
    reward = GTSVJReward(tiny_judge(), check_statistics=False)
    assert reward(clips() * 20).isfinite().all()


@pytest.mark.parametrize(
    ("shape", "fps", "message"),
    [
        ((8, 8, 12), None, "latent frames 8 outside 3..7"),
        ((3, 14, 12), None, "latent height 14 outside 4..12"),
        ((3, 8, 18), None, "latent width 18 outside 4..16"),
        ((3, 8, 12), 60.0, "fps 60 outside 8..30"),
    ],
)
def test_untrained_geometry_is_refused_or_recorded(shape, fps, message):
    latents = clips(1, *shape)
    with pytest.raises(GeometryError, match=message):
        reward_for()(latents, fps=fps)
    lenient = GTSVJReward(tiny_judge(), allow_untrained_geometry=True)
    out = lenient.details([clips(1, 3)[0], latents[0]], fps=fps)
    assert message in out.notes[1]
    assert out.rewards.isfinite().all()


def test_padding_of_time_patches_is_dropped_by_num_frames():
    reward, latents = reward_for("1.5"), clips(2, 5)
    padded = torch.cat([torch.randn(2, 1, 4, 8, 12), latents], dim=1)  # what 1.5 leaves in front
    expected = reward(latents)
    assert torch.equal(reward(padded, num_frames=17), expected)
    assert (reward(padded) - expected).abs().max() > 1e-3
    with pytest.raises(LatentSpaceError, match="13 frames are 4 latent frames"):
        reward(padded, num_frames=13)


def test_frames_are_encoded_by_the_judges_own_vae(tiny_vae):
    space = LatentSpace.from_vae(tiny_vae)
    reward = GTSVJReward(tiny_judge(latent_space=space), check_statistics=False)
    frames = torch.rand(2, 9, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    scores = reward.score_frames(frames, vae=tiny_vae, fps=8.0)
    assert torch.equal(scores, reward(space.encode(frames, tiny_vae), space=space, fps=8.0))
    other = copy.deepcopy(tiny_vae)
    other.encoder.conv_in.conv.weight.data.add_(0.1)
    with pytest.raises(LatentSpaceError, match="expected latents of"):
        reward.score_frames(frames, vae=other, fps=8.0)


def test_scores_need_statistics_unless_raw():
    reward = reward_for(reward_mean=None, reward_std=None)
    with pytest.raises(ValueError, match="normalize=False"):
        reward(clips())
    raw = reward(clips(8), normalize=False)
    reward.with_statistics(raw, "eight clips")
    scores = reward(clips(8))
    torch.testing.assert_close(scores.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(scores.std(), torch.tensor(1.0))
    assert reward.config.reward_data == "eight clips"


def test_prompted_judges_take_one_text_per_clip():
    reward = reward_for(text_input="prompt", batch_size=2)
    batch = mixed_clips()
    embeds = torch.randn(6, 6, 8, generator=torch.Generator().manual_seed(1))
    scores = reward(batch, text=TextCondition(embeds))
    for index, clip in enumerate(batch):
        alone = reward(clip[None], text=TextCondition(embeds[index : index + 1]))
        torch.testing.assert_close(scores[index], alone[0], rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="5 text embeddings for 6 clips"):
        reward(batch, text=TextCondition(embeds[:5]))


def test_offloaded_judges_score_the_same_and_refuse_gradients():
    expected = reward_for()(clips())
    offloaded = GTSVJReward(tiny_judge(), offload_to="cpu")
    assert torch.equal(offloaded(clips()), expected)
    with pytest.raises(ValueError, match="cannot be differentiated through"):
        offloaded(clips().requires_grad_())
    with torch.no_grad():
        assert torch.equal(offloaded(clips().requires_grad_()), expected)


def test_moving_and_casting_keeps_adapter_and_head_in_float32():
    reward = reward_for()
    expected = reward(clips(4))
    assert reward.to(dtype=torch.bfloat16) is reward
    scores = reward(clips(4))
    assert scores.dtype == torch.float32
    assert 0 < (scores - expected).abs().max() < 0.2
    assert reward.judge.head.energy.weight.dtype == torch.float32
    meta = reward_for().to("meta")
    assert meta.device.type == "meta"


def test_merged_rewards_agree_to_rounding():
    latents = clips(8)
    scores = reward_for()(latents)
    merged = reward_for().merge()(latents)
    assert 0 < (merged - scores).abs().max() < 1e-5 * scores.std()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_offloading_to_a_gpu_leaves_the_judge_on_the_cpu():
    offloaded = GTSVJReward(tiny_judge(), offload_to="cuda")
    torch.testing.assert_close(offloaded(clips()).cpu(), reward_for()(clips()), rtol=0, atol=1e-4)
    assert next(offloaded.judge.parameters()).device.type == "cpu"


def test_the_reward_is_a_plain_picklable_callable_with_a_name():
    reward = reward_for()
    assert not isinstance(reward, torch.nn.Module)
    assert reward.__name__ == "gtsvj_discriminator"
    again = pickle.loads(pickle.dumps(reward))
    assert torch.equal(again(clips()), reward(clips()))


def test_from_pretrained_round_trip_and_its_refusals(tmp_path):
    tiny_transformer().save_pretrained(tmp_path / "base")
    reward = reward_for(base_model=str(tmp_path / "base"))
    reward.save_pretrained(tmp_path / "judge")
    loaded = GTSVJReward.from_pretrained(tmp_path / "judge", batch_size=1)
    torch.testing.assert_close(loaded(clips(3)), reward(clips(3)), rtol=0, atol=1e-5)
    with pytest.raises(FileNotFoundError, match="or a hub id"):
        GTSVJReward.from_pretrained(tmp_path / "nothing")


def test_pushing_uploads_exactly_the_checkpoint(monkeypatch):
    calls = []

    class Commit:
        commit_url = "commit"

    class Api:
        def __init__(self, token):
            calls.append(("token", token))

        def create_repo(self, repo_id, *, private, exist_ok):
            calls.append(("create", repo_id, private, exist_ok))

        def upload_folder(self, *, repo_id, folder_path):
            from pathlib import Path

            calls.append(("upload", repo_id, sorted(p.name for p in Path(folder_path).iterdir())))
            return Commit

    monkeypatch.setattr("gtsvj_reward.judge.locate.HfApi", Api)
    assert reward_for().push_to_hub("owner/judge", private=True) == "commit"
    names = ["README.md", "adapter_config.json", "adapter_model.safetensors", "config.json",
             "head.safetensors"]  # fmt: skip
    assert calls == [
        ("token", None),
        ("create", "owner/judge", True, True),
        ("upload", "owner/judge", names),
    ]
