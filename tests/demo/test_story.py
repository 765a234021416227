"""The demo's judge of generated clips: prompts, ratings, gains, and the page as a whole."""

import json
import re

import pytest
import torch

from gtsvj_reward import GTSVJReward, LatentSpace
from gtsvj_reward.cli import main
from gtsvj_reward.demo import PROMPT, Sizes, run_demo
from gtsvj_reward.demo.candidates import Lot, choose_prompts
from gtsvj_reward.demo.chart import gain_bars, unrest_dots
from gtsvj_reward.demo.degradations import DEGRADATIONS
from gtsvj_reward.demo.report import story_rows
from gtsvj_reward.demo.story import Choice, Story, choice_of, contrast, simulated_ratings
from gtsvj_reward.latents import write_video
from gtsvj_reward.toy.measures import steadiness
from gtsvj_reward.toy.pipeline import load_pipeline
from tests.demo.test_demo import pattern


def story(unrest, each, before, after):
    """Grey clips that jump to and fro by so many grey levels."""
    steps = torch.tensor([1.0, -1.0]).repeat(2)[None, :, None, None, None]
    frames = 128 + steps * torch.tensor(unrest)[:, None, None, None, None].expand(-1, 4, 2, 2, 3)
    frames = frames.byte()
    prompts = [f"prompt {number}" for number in range(len(unrest) // each)]
    lot = Lot(prompts, each, torch.zeros(len(unrest), 4, 1, 1, 1), frames, steadiness(frames))
    return Story(lot, [1, 5], before, after, {}, {})


def test_the_prompt_comes_first_and_ranked_prompts_are_not_rated():
    ranked, rated = choose_prompts(PROMPT, 6, 20, seed=0)
    assert ranked[0] == PROMPT
    assert (len(ranked), len(rated)) == (6, 20)
    assert len({*ranked, *rated}) == 26
    assert choose_prompts(PROMPT, 6, 20, seed=1)[1] != rated
    with pytest.raises(ValueError, match="has no caption 'a dog': captions are like 'one red"):
        choose_prompts("a dog", 6, 20, seed=0)


def test_one_candidate_cannot_be_ranked(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "out"), "--candidates", "1"]) == 1
    assert "at least 2 clips, got 1" in capsys.readouterr().err


def test_the_gain_by_hand():
    # The mean is 2; 3 more is all that can be had.
    measured = torch.tensor([1.0, 0.0, 5.0, 2.0])
    assert choice_of(torch.tensor([0.0, 1, 3, 2]), measured) == Choice(2, 0, 1.0)
    assert choice_of(torch.tensor([0.0, 1, 2, 3]), measured).gain == 0.0
    assert choice_of(torch.tensor([9.0, 1, 2, 3]), measured).gain == pytest.approx(-1 / 3)
    with pytest.raises(ValueError, match="all 2 clips measure the same"):
        choice_of(torch.tensor([0.0, 1]), torch.tensor([1.0, 1]))


def test_gains_are_averaged_over_prompts():
    before, after = [Choice(0, 1, 0.5), Choice(0, 1, -0.1)], [Choice(1, 0, 1.0), Choice(1, 0, 0.8)]
    told = story([8.0, 2.0, 4.0, 1.0], 2, before, after)
    assert told.gains() == pytest.approx((0.2, 0.9))
    assert story_rows(told)[1] == ["prompt 0", "50%", "100%"]
    assert story_rows(told)[-1] == ["mean", "20%", "90%"]


def test_a_simulated_person_errs_but_follows_the_measure():
    measured = torch.linspace(0, 1, 200)
    ratings = torch.tensor(simulated_ratings(measured, seed=0))
    assert set(ratings.tolist()) == {1, 2, 3, 4, 5}
    assert torch.corrcoef(torch.stack([ratings.float(), measured]))[0, 1] > 0.9
    assert bool((ratings.diff() < 0).any())
    assert simulated_ratings(measured, seed=0) == ratings.tolist()


def test_a_perturbation_stays_with_its_source_and_a_generated_clip_is_taken_as_it_is():
    generator = torch.Generator().manual_seed(0)
    real, made = (torch.randn(number, 5, 16, 8, 8, generator=generator) for number in (20, 3))
    pairs = contrast(real, made, seed=0)
    kinds = {pair.groups[1].split()[0] for pair in pairs}
    assert kinds == {"real", "generated"}
    for pair in pairs:
        source, number = pair.groups[1].split()
        assert pair.groups[0] == pair.groups[1] or source == "generated"
        assert torch.equal(pair.positive(), real[int(pair.groups[0].split()[1])])
        same = source == "generated" and torch.equal(pair.negative(), made[int(number)])
        assert same == (source == "generated")


def test_charts_put_the_steadiest_clip_on_the_right_and_a_loss_left_of_zero():
    told = story([8.0, 2.0, 4.0, 1.0], 2, [Choice(0, 1, -1.0)] * 2, [Choice(1, 0, 1.0)] * 2)
    drawn = unrest_dots(told)
    rings = [float(x) for x in re.findall(r'class="ring" cx="([\d.]+)"', drawn)]
    picks = [float(x) for x in re.findall(r'class="pick" cx="([\d.]+)"', drawn)]
    assert rings[0] == 245.0  # 8 grey levels: the least steady of all
    assert picks[1] == 705.0  # 1 grey level: the steadiest
    assert all(pick > ring for ring, pick in zip(rings, picks, strict=True))
    assert drawn.count('class="dot"') == 4
    # From -20% to 100% is 220 long, from 88 on: 0% is at 88 + 220 / 6, half is 220 / 2.4.
    drawn = gain_bars(-0.2, 0.5)
    assert re.findall(r'class="bar\d" x="([\d.]+)" y="\d+" width="([\d.]+)"', drawn) == [
        ("88.0", "36.7"), ("124.7", "91.7"),
    ]  # fmt: skip
    assert 'class="zero" x1="124.7"' in drawn
    assert "zero" not in gain_bars(0.2, 0.5)


@pytest.mark.slow
def test_the_demo_runs_on_own_videos(tmp_path, capsys):
    """All steps, small: a table for every fault, a page with clips that are there, and judges."""
    for index, speed in enumerate((0.1, 0.3)):
        write_video(tmp_path / "videos" / f"v{index}.mp4", pattern(frames=88, speed=speed), 25.0)
    out = tmp_path / "out"
    sizes = Sizes(real=6, rated_prompts=4, rated_each=2, ranked_prompts=2, candidates=2)
    prompt = "one blue circle falling"
    page = run_demo(
        out, videos=tmp_path / "videos", seed=0, run_command=main, prompt=prompt, sizes=sizes
    )
    results = json.loads((out / "results.json").read_text())
    assert results["story"]["prompts"][0] == prompt
    assert results["story"]["counts"] == {"real": 6, "rated": 8, "candidates": 4}
    kinds = [item["kind"] for item in results["footage"]["comparisons"]]
    assert kinds == [
        "temporal_slice_swap", "noisy_segment", "frame_shuffle", "frame_drop", "patch_swap",
        "latent_blur", "latent_ghosting", *DEGRADATIONS,
    ]  # fmt: skip
    text = page.read_text()
    assert "do not apply to real footage" in text
    assert "$" not in text.partition("<script>")[0]
    assert "://" not in text.replace("http://www.w3.org/2000/svg", "")
    sources = re.findall(r'src="([^"]+)"', text)
    assert len(sources) >= 2 * 3 + 5 + 1
    assert all((out / source).stat().st_size > 500 for source in sources)
    assert "share of the possible gain" in capsys.readouterr().out
    pipe = load_pipeline("gtsvj-toy-unsteady")
    reward = GTSVJReward.from_pretrained(out / "toy" / "judge", transformer=pipe.transformer)
    scored = reward.details(torch.randn(1, 5, 16, 8, 8), space=LatentSpace.from_pipeline(pipe))
    assert list(scored.parts) == ["steadiness"]
