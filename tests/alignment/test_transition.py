import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler
from torch.distributions import Normal, kl_divergence

from gtsvj_reward.alignment import (
    add_noise,
    ddim_scheduler,
    ddim_transition,
    log_probability,
    transition_kl,
)
from gtsvj_reward.alignment.transition import standard_normal
from gtsvj_reward.random_keys import keyed_generator


def make_scheduler(steps, **changes):
    scheduler = CogVideoXDDIMScheduler(
        **{
            "prediction_type": "v_prediction",
            "timestep_spacing": "trailing",
            "rescale_betas_zero_snr": True,
            **changes,
        }
    )
    scheduler.set_timesteps(steps)
    return scheduler


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("steps", [1, 4, 6, 25, 50])
@pytest.mark.parametrize("snr_shift_scale", [1.0, 3.0])
@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_without_noise_it_is_the_step_of_diffusers_bitwise(steps, snr_shift_scale, prediction_type):
    scheduler = make_scheduler(
        steps, snr_shift_scale=snr_shift_scale, prediction_type=prediction_type
    )
    noisy, output = draw(2, 3, 4, 2, 2), draw(2, 3, 4, 2, 2, seed=1)
    for timestep in scheduler.timesteps:
        stock = scheduler.step(output, timestep, noisy)
        step = ddim_transition(scheduler, output, int(timestep), noisy, eta=0.0)
        assert torch.equal(step.clean, stock.pred_original_sample)
        assert step.std == 0
        if steps == 6 and timestep == scheduler.timesteps[-1]:
            # 166.67 is rounded up to 167 timesteps: diffusers stops one short of the end.
            assert (stock.prev_sample - step.clean).abs().max() > 0.01
        else:
            assert torch.equal(step.mean, stock.prev_sample)


COUNTS = range(2, 61)


@pytest.mark.parametrize("set_alpha_to_one", [True, False])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_last_step_ends_without_noise_whatever_their_number(eta, set_alpha_to_one):
    noisy, output = draw(2, 3, 4, 2, 2), draw(2, 3, 4, 2, 2, seed=1)
    for steps in COUNTS:
        scheduler = make_scheduler(steps, set_alpha_to_one=set_alpha_to_one)
        *others, last = scheduler.timesteps.tolist()
        assert len(others) == steps - 1
        found = ddim_transition(scheduler, output, last, noisy, eta=eta)
        assert found.std == 0, steps
        torch.testing.assert_close(found.mean, found.clean, msg=f"{steps} steps")
        for timestep in others:
            step = ddim_transition(scheduler, output, timestep, noisy, eta=eta)
            assert (step.std > 0) == (eta > 0), (steps, timestep)


def gradient_shares(steps):
    """Share of each stochastic step in the gradient of log-probabilities, noisiest first."""
    scheduler, noise = make_scheduler(steps), draw(1, 3, 4, 2, 2, seed=2)
    norms = []
    for timestep in scheduler.timesteps.tolist():
        output = draw(1, 3, 4, 2, 2, seed=1).requires_grad_()
        step = ddim_transition(scheduler, output, timestep, draw(1, 3, 4, 2, 2), eta=1.0)
        if step.std > 0:
            following = step.mean.detach() + step.std * noise
            log_probability(following, step.mean, step.std).sum().backward()
            norms.append(output.grad.norm().item())
    return [norm / sum(norms) for norm in norms]


def test_no_step_outweighs_the_others_more_than_with_fewer_steps():
    """With each further step the largest share of a gradient falls, but for rounded timesteps."""
    largest = [max(gradient_shares(steps)) for steps in COUNTS]
    assert largest[0] == pytest.approx(1)  # 2 steps, one of them stochastic
    for steps, before, after in zip(COUNTS[1:], largest, largest[1:], strict=False):
        assert after < 1.05 * before, f"{steps} steps: {after:.2f} after {before:.2f}"
    assert largest[-1] < 0.12


def test_the_variance_is_that_of_the_ddim_paper():
    # Eq. 16 of Song et al. 2021, with numbers read from the scheduler in float64
    scheduler = make_scheduler(4)
    levels = scheduler.alphas_cumprod.double()
    noisy, output = draw(1, 2, 2, 1, 1), draw(1, 2, 2, 1, 1, seed=1)
    for timestep, previous in ((749, 499), (499, 249)):
        here, there = levels[timestep].item(), levels[previous].item()
        sigma = ((1 - there) / (1 - here)) ** 0.5 * (1 - here / there) ** 0.5
        for eta in (0.3, 1.0):
            step = ddim_transition(scheduler, output, timestep, noisy, eta=eta)
            assert step.std == pytest.approx(eta * sigma, rel=1e-5)
            # Eq. 12: μ = √ᾱ' x̂₀ + √(1 - ᾱ' - σ²) ε̂
            clean = here**0.5 * noisy - (1 - here) ** 0.5 * output
            noise = (1 - here) ** 0.5 * noisy + here**0.5 * output
            mean = there**0.5 * clean + (1 - there - (eta * sigma) ** 2) ** 0.5 * noise
            torch.testing.assert_close(step.mean, mean, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_marginals_are_those_of_the_forward_process(eta):
    """With the true x₀ in the model's place, x_t stays N(√ᾱ m, ᾱ s² + 1 - ᾱ), for any η."""
    scheduler = make_scheduler(5)
    count, mean, spread = 400_000, 0.7, 0.5
    clean = mean + spread * draw(count, 1, 1, 1, 1)
    noisy, generator = draw(count, 1, 1, 1, 1, seed=1), torch.Generator().manual_seed(2)
    for timestep in scheduler.timesteps.tolist():
        level = scheduler.alphas_cumprod[timestep]
        noise = (noisy - level**0.5 * clean) / (1 - level) ** 0.5
        output = level**0.5 * noise - (1 - level) ** 0.5 * clean
        step = ddim_transition(scheduler, output, timestep, noisy, eta=eta)
        noisy = step.mean + step.std * torch.randn(noisy.shape, generator=generator)
        previous = timestep - 200
        there = scheduler.alphas_cumprod[previous].item() if previous >= 0 else 1.0
        variance = there * spread**2 + 1 - there
        # five standard errors of a mean and of a variance
        error = (variance / count) ** 0.5
        assert noisy.mean().item() == pytest.approx(there**0.5 * mean, abs=5 * error)
        assert noisy.var().item() == pytest.approx(variance, rel=5 * (2 / count) ** 0.5)


def test_many_steps_of_the_exact_model_reach_the_data():
    """x₀ ~ N(m, s²) and its posterior mean as the model: DDPM arrives at mean and spread."""
    scheduler = make_scheduler(1000)
    mean, spread = 0.7, 0.5
    noisy, generator = draw(20_000, 1, 1, 1, 1), torch.Generator().manual_seed(2)
    for timestep in scheduler.timesteps.tolist():
        level = scheduler.alphas_cumprod[timestep].item()
        gain = level**0.5 * spread**2 / (level * spread**2 + 1 - level)
        clean = mean + gain * (noisy - level**0.5 * mean)
        output = (level**0.5 * noisy - clean) / (1 - level) ** 0.5
        step = ddim_transition(scheduler, output, timestep, noisy, eta=1.0)
        noisy = step.mean + step.std * torch.randn(noisy.shape, generator=generator)
    assert noisy.mean().item() == pytest.approx(mean, abs=0.02)
    assert noisy.std().item() == pytest.approx(spread, rel=0.03)


def test_log_probability_is_that_of_a_normal_distribution():
    mean, following = draw(3, 2, 4, 2, 2).double(), draw(3, 2, 4, 2, 2, seed=1).double()
    density = Normal(mean, 0.3).log_prob(following).flatten(1)
    found = log_probability(following, mean, 0.3, elements="sum")
    torch.testing.assert_close(found, density.sum(1))
    torch.testing.assert_close(log_probability(following, mean, 0.3), density.mean(1))


def test_divergence_is_that_of_normal_distributions():
    mean, reference = draw(3, 2, 4, 2, 2).double(), draw(3, 2, 4, 2, 2, seed=1).double()
    divergence = kl_divergence(Normal(mean, 0.3), Normal(reference, 0.3)).flatten(1)
    torch.testing.assert_close(
        transition_kl(mean, reference, 0.3, elements="sum"), divergence.sum(1)
    )
    torch.testing.assert_close(transition_kl(mean, reference, 0.3), divergence.mean(1))


def test_gradients_reach_the_mean_and_not_the_sample():
    mean = draw(1, 1, 2, 1, 1).requires_grad_()
    following = draw(1, 1, 2, 1, 1, seed=1).requires_grad_()
    log_probability(following, mean, 0.5).sum().backward()
    assert mean.grad.abs().max() > 0
    assert following.grad is None


def test_noise_and_velocity_are_those_of_the_scheduler():
    scheduler = make_scheduler(4)
    clean, noise = draw(3, 2, 4, 2, 2), draw(3, 2, 4, 2, 2, seed=1)
    timesteps = torch.tensor([0, 500, 999])
    noisy, target = add_noise(scheduler, clean, noise, timesteps)
    torch.testing.assert_close(noisy, scheduler.add_noise(clean, noise, timesteps))
    torch.testing.assert_close(target, scheduler.get_velocity(clean, noise, timesteps))


def test_a_scheduler_of_any_kind_becomes_one_of_the_same_noise_levels():
    given = CogVideoXDPMScheduler(prediction_type="v_prediction", snr_shift_scale=2.0)
    made = ddim_scheduler(given)
    assert type(made) is CogVideoXDDIMScheduler
    assert made.config.timestep_spacing == "trailing"
    assert torch.equal(made.alphas_cumprod, given.alphas_cumprod)


def test_noise_of_a_clip_does_not_depend_on_its_batch():
    one = standard_normal((2, 3), [keyed_generator(7)], torch.device("cpu"))
    two = standard_normal((2, 3), [keyed_generator(8), keyed_generator(7)], torch.device("cpu"))
    assert torch.equal(one[0], two[1])
    assert not torch.equal(two[0], two[1])


def test_what_makes_no_sense_is_refused():
    scheduler, x = make_scheduler(4), draw(1, 2, 2, 1, 1)
    with pytest.raises(ValueError, match="eta"):
        ddim_transition(scheduler, x, 999, x, eta=-0.1)
    with pytest.raises(ValueError, match="variance"):
        ddim_transition(scheduler, x, 499, x, eta=9.0)
    with pytest.raises(ValueError, match="prediction_type"):
        ddim_transition(make_scheduler(4, prediction_type="epsilon"), x, 999, x, eta=0.0)
    with pytest.raises(ValueError, match="CogVideoXDPMScheduler"):
        ddim_transition(CogVideoXDPMScheduler(), x, 999, x, eta=0.0)
    with pytest.raises(ValueError, match="set_timesteps"):
        ddim_transition(CogVideoXDDIMScheduler(), x, 999, x, eta=0.0)
    with pytest.raises(ValueError, match="deterministic"):
        log_probability(x, x, 0.0)
    with pytest.raises(ValueError, match="divergence"):
        transition_kl(x, x, 0.0)
