"""The study of gradients: directions, smoothing, and penalties on the gradient, by hand."""

import pytest
import torch

from gtsvj_reward.training.closed_form import stages
from studies.gradients import ascent, cosine, gradient
from studies.gradients_page import says, table
from studies.gradients_scores import Energy, noise_like, smoothed

TEXTS = ["a", "b"]


def clips(*values: float) -> torch.Tensor:
    return torch.tensor(values).float().view(-1, 1, 1, 1, 2)


def test_an_ascent_takes_steps_of_one_length_up_the_gradient():
    start, target = clips(0, 0, 1, 1), clips(4, 0, 1, 3)
    score = lambda batch, texts: batch[:, 0, 0, 0, 0] * 7  # noqa: E731
    assert gradient(score, start, TEXTS).flatten().tolist() == [7, 0, 7, 0]
    assert cosine(gradient(score, start, TEXTS), target - start).tolist() == pytest.approx(
        [1.0, 0.0]
    )
    # half of the way, 4 and 2, along the first axis
    end = ascent(score, start, target, TEXTS)
    assert end.flatten().tolist() == pytest.approx([2.0, 0.0, 2.0, 1.0])


def test_smoothing_is_the_mean_over_noise():
    square = smoothed(lambda batch, texts: batch.flatten(1).square().sum(dim=1), 0.5, 400)
    start = clips(1, 2, 0, 0)
    # E (x + n)^2 = x^2 + sigma^2 for both elements; its gradient is that of x^2, plus the mean n
    assert square(start, TEXTS).tolist() == pytest.approx([5.5, 0.5], abs=0.2)
    assert gradient(square, start, TEXTS).flatten().tolist() == pytest.approx([2, 4, 0, 0], abs=0.2)
    assert torch.equal(noise_like(start, 1)[:1], noise_like(start[:1], 1))


def energy(rough: float) -> Energy:
    """Two features tell positives from negatives alike; the second moves `rough` times as much."""
    positive = 1 + 0.3 * noise_like(torch.zeros(40, 1, 1, 1, 2), 5)
    negative = 0.3 * noise_like(torch.zeros(40, 1, 1, 1, 2), 6)

    def features(batch):
        value = batch.flatten(1)
        return torch.stack([value[:, 0], value[:, 1] + 0.02 * (rough * value[:, 1]).sin()], dim=1)

    return Energy(features, (2,), positive, negative, torch.arange(80) % 40)


def test_without_a_penalty_the_energy_is_that_of_stage_1():
    own = energy(1.0)
    features = own.read(torch.cat([own.positive, own.negative]))
    standard = stages.Standard.of(features[:40])
    solved = stages.solve_energy(
        standard(features), (2,), positive=torch.arange(80) < 40,
        weights=torch.ones(80).double(), groups=own.groups, beta=0.2,
    )  # fmt: skip
    plain = own.solve(0.1, [0.0])[0](own.negative, TEXTS)
    theirs = -solved.fit(standard(features[40:]), features[40:, :0])[:, 0]
    # the same up to the unit and the constant
    assert torch.corrcoef(torch.stack([plain, theirs]))[0, 1].item() == pytest.approx(1.0, abs=1e-9)


def test_a_penalty_on_the_gradient_turns_the_score_to_what_is_smooth():
    own, start = energy(200.0), clips(0.5, 0.5)
    found = [gradient(score, start, ["a"]).flatten() for score in own.solve(0.1, [0.0, 100.0])]
    first, second = ((pair[0] / pair.norm()).abs().item() for pair in found)
    assert second > first


def test_the_page_says_what_was_measured():
    faults = {
        "flicker": {
            "cosine": [0.1, 0.3], "right": [1.0, 0.0], "distance": [1.0, 1.2],
            "steadier": [0.2, 0.4], "possible": [1.0, 2.0],
        },
        "blur": {"cosine": [0.1, 0.1], "right": [1.0, 1.0], "distance": [0.8, 1.0]},
    }  # fmt: skip
    row = table({"energy": {"faults": faults}}).splitlines()[2]
    # per scene: cosines .1 and .2, distances .9 and 1.1; .2 / 1.5 and .4 / 1.5 of the steadiness;
    # t = 12.706 at one degree of freedom
    assert row.endswith("| 75% | +0.150 ± 0.635 | 1.000 ± 1.271 | 20 ± 85% |")
    assert says("energy, noise 0.1") == (
        "`energy`, mean over 4 draws of noise on the latents, deviation 0.1"
    )
