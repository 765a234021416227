"""Checkpoints and journals of a run: whole or absent, and bitwise what was saved."""

import pytest
import torch

from gtsvj_reward.alignment.arguments import AlignArguments
from gtsvj_reward.alignment.checkpoints import (
    latest_checkpoint,
    load_checkpoint,
    load_moments,
    optimizer_moments,
    save_checkpoint,
)
from gtsvj_reward.alignment.journal import Journal, latest, read_journal
from gtsvj_reward.files import part_of


def trained(steps=3):
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2)
    parameters = dict(layer.named_parameters())
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.1)
    for _ in range(steps):
        layer(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return layer, parameters, optimizer


def save(folder, iteration, keep=2):
    _, parameters, optimizer = trained()
    adapter = {name: p.detach() for name, p in parameters.items()}
    return save_checkpoint(
        folder,
        iteration,
        adapter=adapter,
        parameters=parameters,
        optimizer=optimizer,
        state={"more": [1, 2]},
        keep=keep,
    )


def test_an_optimizer_goes_on_bitwise_from_a_checkpoint(tmp_path):
    path = save(tmp_path, 7)
    adapter, moments, state = load_checkpoint(path)
    assert state == {"more": [1, 2], "iteration": 7}
    layer, parameters, optimizer = trained(steps=0)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(adapter[name])
    load_moments(optimizer, parameters, moments)
    layer(torch.ones(1, 3)).square().sum().backward()
    optimizer.step()
    whole, _, _ = trained(steps=4)
    assert torch.equal(layer.weight, whole.weight)
    assert optimizer_moments(optimizer, parameters)["weight/step"] == 4


def test_only_whole_checkpoints_count_and_the_newest_are_kept(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for iteration in (1, 2, 10):
        save(tmp_path, iteration)
    (tmp_path / "iteration-000011").mkdir()  # cut off before its state was written
    assert sorted(p.name for p in tmp_path.glob("*-0*")) == [
        "iteration-000002", "iteration-000010", "iteration-000011",
    ]  # fmt: skip
    assert latest_checkpoint(tmp_path).name == "iteration-000010"
    assert not list(tmp_path.glob(".*"))


def test_a_broken_off_part_is_no_obstacle(tmp_path):
    part = part_of(tmp_path / "iteration-000003")
    part.mkdir()
    (part / "adapter.safetensors").write_bytes(b"half")
    assert latest_checkpoint(tmp_path) is None
    load_checkpoint(save(tmp_path, 3))
    assert not part.exists()


def test_moments_of_other_parameters_are_refused():
    _, parameters, optimizer = trained()
    moments = optimizer_moments(optimizer, parameters)
    moments.pop("bias/step")
    with pytest.raises(ValueError, match="bias/step"):
        load_moments(optimizer, parameters, moments)


def test_a_journal_is_rewound_to_what_the_checkpoint_knows(tmp_path):
    journal = Journal(tmp_path, writes=True)
    for iteration in (0, 1, 2, 2, 3):
        journal.add({"iteration": iteration, "x": 0.5})
    with journal.path.open("a") as opened:
        opened.write('{"iteration": 4, "x"')
    again = Journal(tmp_path, writes=True)
    again.rewind(2)
    assert [entry["iteration"] for entry in again.entries] == [0, 1, 2, 2]
    assert read_journal(journal.path) == again.entries
    again.rewind(0)
    assert read_journal(journal.path) == []


def test_a_journal_that_is_damaged_inside_is_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iteration": 0}\n{"iter\n{"iteration": 2}\n')
    with pytest.raises(ValueError, match="damaged before its last line"):
        read_journal(path)


def test_settings_that_change_nothing_of_the_iterations_do_not_change_the_fingerprint(tmp_path):
    def settings(**changes):
        return AlignArguments(**{"output_dir": "a", **changes}).fingerprint()

    assert settings() == settings(output_dir="b", iterations=99, save_every=3, samples=0)
    for name, value in {"seed": 1, "learning_rate": 0.5, "reward": ["x"], "batch_size": 3}.items():
        assert settings(**{name: value}) != settings()


def test_arguments_are_checked(tmp_path):
    for changes, words in (
        ({"output_dir": ""}, "output_dir"),
        ({"iterations": 0}, "iterations"),
        ({"evaluate_every": 0}, "evaluate_every"),
        ({"evaluation_clips": 1}, "at least 2 clips"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ):
        with pytest.raises(ValueError, match=words):
            AlignArguments(**{"output_dir": "a", **changes})
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one\n\n two \none\n")
    given = AlignArguments(output_dir="a", prompts=str(prompts), prompts_per_iteration=2)
    assert given.read_prompts([]) == ["one", "two"]
    with pytest.raises(ValueError, match="at least 8 different prompts"):
        AlignArguments(output_dir="a", prompts=str(prompts)).read_prompts([])


def test_a_bar_shows_the_last_reward_and_the_last_of_each_watched_measure():
    entries = [
        {"iteration": 0, "proxy": 0.5, "eval/caption": -2.0, "roughness": 1.0},
        {"iteration": 1, "reward": 0.6251, "kl": 0.01},
        {"iteration": 2, "reward": 0.7, "kl": 0.02},
    ]
    assert latest(entries) == {"proxy": "0.5", "caption": "-2", "reward": "0.7"}
    assert latest([]) == {}
