"""What a command line may train on."""

import sys

import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.alignment import AlignArguments
from gtsvj_reward.alignment.rewards import (
    Term,
    judges_of,
    load_function,
    refitted_judge,
    reward_of,
    reward_terms,
    with_judge,
)
from gtsvj_reward.reward import WeightedReward
from tests.alignment.tiny import TEXTS
from tests.examples.tiny_runs import tiny_run
from tests.judge.test_moment_judge import moment_judge
from tests.tiny import clips, tiny_judge


def brightness(latents, **_given):
    """A function of one's own."""
    return torch.as_tensor(latents).flatten(1).mean(1)


def test_words_are_names_with_weights():
    assert reward_terms(["a/b"]) == (Term("a/b", 1.0),)
    assert reward_terms(["a=0.5", "prompt-score=-2", "m.n:f=1e-3"]) == (
        Term("a", 0.5),
        Term("prompt-score", -2.0),
        Term("m.n:f", 0.001),
    )
    assert reward_terms(["runs/lr=fast"]) == (Term("runs/lr=fast", 1.0),)  # a path
    assert [Term(n, 1.0).is_function for n in ("m:f", "m.n:f", "a/b", r"C:\judge")] == [
        True, True, False, False,
    ]  # fmt: skip
    for words in ([], ["=2"], ["a", "a=2"]):
        with pytest.raises(ValueError, match="different rewards"):
            reward_terms(words)
    with pytest.raises(ValueError, match="weight of 'a' is 0"):
        reward_terms(["a=0"])


def test_functions_that_cannot_be_imported_are_refused_by_name():
    assert load_function("math:sin")(0.0) == 0
    for name in ("no_such_module:f", "math:no_such_function"):
        with pytest.raises(ValueError, match=f"no reward '{name}'"):
            load_function(name)
    with pytest.raises(ValueError, match="is a float, expected a function"):
        load_function("math:pi")


def test_a_module_that_hides_that_of_the_current_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "colorsys.py").write_text("def hls_to_rgb(latents, **given): ...\n")
    with pytest.raises(ValueError, match=r"`colorsys` is .* which hides .*: rename your module"):
        load_function("colorsys:hls_to_rgb")


def test_a_sum_is_the_sum_of_its_terms_and_its_judge_can_be_replaced(tmp_path, monkeypatch):
    (tmp_path / "own_reward.py").write_text(
        "def brightness(latents, **given):\n    return latents.flatten(1).mean(1)\n"
    )
    # As `python examples/ddpo.py` has it, the current folder is not on the path.
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])
    monkeypatch.chdir(tmp_path)
    first, second = (
        GTSVJReward(moment_judge(filled=filled), check_statistics=False) for filled in (True, False)
    )
    first.with_statistics(torch.tensor([0.0, 2.0]), "two clips")
    second.with_statistics(torch.tensor([0.0, 1.0]), "two clips")
    latents = clips(3)
    alone = reward_of(reward_terms(["one"]), lambda _: first, lambda: brightness)
    assert alone is first
    assert refitted_judge(alone) == ("reward", first)
    terms = reward_terms(["one=0.5", "prompt-score=2", "own_reward:brightness=-1"])
    total = reward_of(terms, lambda _: first, lambda: brightness)
    expected = 0.5 * first(latents) + brightness(latents)
    torch.testing.assert_close(total(latents), expected)
    name, judge = refitted_judge(total)
    assert (name, judge, judges_of(total)) == ("one", first, {"one": first})
    torch.testing.assert_close(
        with_judge(total, name, second)(latents), 0.5 * second(latents) + brightness(latents)
    )
    with pytest.raises(ValueError, match="`reward` has 0"):
        refitted_judge(brightness)


def test_a_function_sees_its_prompts_alone_and_in_a_sum(tmp_path):
    _, run = tiny_run(AlignArguments, tmp_path)
    latents = torch.zeros(2, *run.policy.latent_shape)
    seen = []

    def own(latents, *, text, prompts, **_given):
        seen.append((text.embeds, prompts))
        return brightness(latents)

    judge = tiny_judge(latent_space=run.policy.space)
    blind = GTSVJReward(judge, check_statistics=False)
    assert not blind.reads_text
    for reward in (own, WeightedReward([("own", own, 2.0), ("judge", blind, 1.0)])):
        run.use(reward)
        run.scores(latents, TEXTS)
    for embeds, prompts in seen:
        assert prompts == TEXTS
        assert torch.equal(embeds, run.policy.encode(TEXTS).text.embeds)
    assert len(seen) == 2
    with pytest.raises(TypeError, match="'prompts'"):
        run.scores(latents)  # nobody knows them
