import json

import pytest
import torch
from hypothesis import given, strategies as st

from gtsvj_reward.alignment import load_pairs, mine_pairs, pair_errors, read_pairs
from gtsvj_reward.latents.space import LatentSpaceError
from gtsvj_reward.latents.store import LatentClip, save_clip
from gtsvj_reward.losses import denoising_error
from gtsvj_reward.random_keys import keyed_generator
from tests.alignment.tiny import TEXTS, moved
from tests.tiny import tiny_space

KEYS = [(0, 1), (0, 2)]


@given(
    st.lists(st.tuples(st.floats(-3, 3, width=32), st.sampled_from("abc")), min_size=2, max_size=9),
    st.sampled_from([0.0, 0.5]),
)
def test_pairs_are_the_extremes_of_each_prompt(rows, min_margin):
    groups = {prompt: [r for r, p in rows if p == prompt] for _, prompt in rows}
    rewards, prompts = torch.tensor([r for r, _ in rows]), [p for _, p in rows]
    if min(len(group) for group in groups.values()) < 2:
        with pytest.raises(ValueError, match="has one"):
            mine_pairs(rewards, prompts)
        return
    found = mine_pairs(rewards, prompts, min_margin=min_margin)
    kept = [g for g in groups.values() if max(g) > min(g) and max(g) - min(g) >= min_margin]
    assert [rewards[i].item() for i in found.chosen] == [max(g) for g in kept]
    assert [rewards[i].item() for i in found.rejected] == [min(g) for g in kept]
    assert found.dropped == len(groups) - len(kept)
    for better, worse in zip(found.chosen, found.rejected, strict=True):
        assert prompts[better] == prompts[worse]


def write_clip(folder, name, value, policy, **changes):
    latents = torch.full(policy.latent_shape, value)
    fields = {"space": policy.space, "fps": 8.0, "num_frames": 9, **changes}
    save_clip(folder / name, LatentClip(latents=latents, **fields))


def write_pairs(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_stored_pairs_are_read_by_file_or_source_and_turned_the_right_way(policy, tmp_path, caplog):
    folder, table = tmp_path / "latents", tmp_path / "pairs.jsonl"
    for index in range(3):
        write_clip(folder, f"{index}.safetensors", float(index), policy)
    write_clip(folder, "3.safetensors", 3.0, policy, source="real/x.mp4")
    write_pairs(
        table,
        [
            {"prompt": "p", "video_a": "0.safetensors", "video_b": "1.safetensors", "label": 1},
            {"prompt": "q", "video_a": "2.safetensors", "video_b": "real/x.mp4", "label": -1},
            {"prompt": "q", "video_a": "0.safetensors", "video_b": "2.safetensors", "label": 0},
            {"prompt": "q", "video_a": "1.safetensors", "video_b": "2.safetensors", "label": None},
        ],
    )
    found = read_pairs(table, folder)
    assert (found.ties, found.unlabelled) == (1, 1)
    assert "1 ties and 1 rows without a label 'overall' left out, 2 pairs kept" in caplog.text
    texts, chosen, rejected = load_pairs(found.pairs, policy)
    assert texts == ["p", "q"]
    assert chosen[:, 0, 0, 0, 0].tolist() == [0.0, 3.0]
    assert rejected[:, 0, 0, 0, 0].tolist() == [1.0, 2.0]


def test_stored_pairs_that_cannot_be_trained_on_are_refused(policy, tmp_path):
    folder, table = tmp_path / "latents", tmp_path / "pairs.jsonl"
    write_clip(folder, "0.safetensors", 0.0, policy)
    row = {"video_a": "0.safetensors", "video_b": "1.safetensors", "label": 1}
    write_pairs(table, [row])
    with pytest.raises(ValueError, match="no prompt"):
        read_pairs(table, folder)
    write_pairs(table, [{**row, "prompt": "p"}])
    with pytest.raises(ValueError, match=r"1\.safetensors"):
        read_pairs(table, folder)
    write_pairs(table, [{**row, "prompt": "p", "label": "tie"}])
    with pytest.raises(ValueError, match="none of 1 rows"):
        read_pairs(table, folder)
    for name in ("0.safetensors", "1.safetensors"):
        write_clip(folder, name, 0.0, policy, space=tiny_space(scaling_factor=2.0))
    write_pairs(table, [{**row, "prompt": "p"}])
    with pytest.raises(LatentSpaceError, match="the policy generates"):
        load_pairs(read_pairs(table, folder).pairs, policy)


def test_clips_of_another_size_are_refused(policy, tmp_path):
    for name in ("0", "1"):
        latents = torch.zeros(2, 4, 4, 6)
        clip = LatentClip(latents=latents, space=policy.space, fps=8.0, num_frames=5)
        save_clip(tmp_path / "latents" / f"{name}.safetensors", clip)
    row = {"prompt": "p", "video_a": "0.safetensors", "video_b": "1.safetensors", "label": 1}
    write_pairs(tmp_path / "pairs.jsonl", [row])
    found = read_pairs(tmp_path / "pairs.jsonl", tmp_path / "latents")
    with pytest.raises(LatentSpaceError, match=r"\(2, 4, 4, 6\), the policy makes \(3, 4, 4, 6\)"):
        load_pairs(found.pairs, policy)


def test_errors_of_a_pair_equal_those_worked_out_one_clip_at_a_time(policy):
    moved(policy)
    generator = torch.Generator().manual_seed(0)
    chosen, rejected = torch.randn(2, 2, *policy.latent_shape, generator=generator)
    prompts = policy.encode(TEXTS)
    found = pair_errors(policy, prompts, chosen, rejected, keys=KEYS, timesteps=[999, 400])
    assert found[0].requires_grad
    assert not found[2].requires_grad
    scheduler = policy.scheduler
    for index, key in enumerate(KEYS):
        draws = keyed_generator(*key)
        timestep = [999, 400][int(torch.randint(2, (), generator=draws))]
        noise = torch.randn(policy.latent_shape, generator=draws)
        for place, clip in enumerate((chosen[index], rejected[index])):
            level = scheduler.alphas_cumprod[timestep].float()
            noisy = level.sqrt() * clip + (1 - level).sqrt() * noise
            target = level.sqrt() * noise - (1 - level).sqrt() * clip
            one = policy.encode(TEXTS[index : index + 1])
            output = policy.predict(noisy[None], timestep, one, guided=False)
            error = denoising_error(output, target[None])
            torch.testing.assert_close(found[place][index], error[0], rtol=1e-4, atol=1e-6)
            with policy.reference():
                output = policy.predict(noisy[None], timestep, one, guided=False)
            error = denoising_error(output, target[None])
            torch.testing.assert_close(found[2 + place][index], error[0], rtol=1e-4, atol=1e-6)
