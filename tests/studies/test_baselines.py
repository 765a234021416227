"""The study's baselines: they can learn what they can see, and see nothing else."""

import torch

from studies import baselines


def clips(count, seed=0, time=5):
    return torch.randn(count, time, 16, 8, 8, generator=torch.Generator().manual_seed(seed))


def shuffled(latents):
    return latents[:, [0, 3, 1, 4, 2]]


def test_ridge_finds_a_property_that_the_statistics_have():
    generator = torch.Generator().manual_seed(1)
    scale = 0.5 + torch.rand(200, 1, generator=generator)
    latents = clips(200) * scale[..., None, None, None]
    predict = baselines.fit_ridge(latents[:150], scale[:150], 0)
    error = (predict(latents[150:]) - scale[150:]).abs().mean()
    assert error < 0.05
    assert scale[150:].std() > 0.2


def test_statistics_are_blind_to_space_but_not_to_the_order_in_time():
    latents = clips(3)
    features = baselines.statistics(latents)
    assert torch.allclose(features, baselines.statistics(latents.flip(3)), atol=1e-5)
    assert not torch.allclose(features, baselines.statistics(shuffled(latents)), atol=1e-3)


def test_the_framewise_network_cannot_see_the_order_of_frames_and_the_other_can():
    torch.manual_seed(0)
    latents = clips(2)
    for time, blind in ((1, True), (3, False)):
        network = baselines.Convolutions(time).eval()
        with torch.no_grad():
            same = torch.allclose(network(latents), network(shuffled(latents)), atol=1e-5)
        assert same is blind


def test_a_network_learns_from_labels():
    generator = torch.Generator().manual_seed(2)
    targets = torch.rand(64, 4, generator=generator)
    latents = 0.1 * clips(64) + targets.repeat(1, 4)[:, None, :, None, None]
    predict = baselines.fit_network(latents, targets, 0, time=1, steps=120)
    assert (predict(latents) - targets).square().mean() < 0.5 * targets.var()


def test_weights_of_comparisons_point_where_the_labels_do():
    generator = torch.Generator().manual_seed(3)
    first, second = (torch.rand(800, 4, generator=generator) for _ in range(2))
    truth = torch.tensor([3.0, 1.0, 0.0, 2.0])
    labels = ((first - second) @ truth).sign().long()
    labels[::10] = 0  # ties teach nothing
    weights = baselines.fit_weights(first, second, labels)
    assert torch.nn.functional.cosine_similarity(weights, truth, dim=0) > 0.98


def test_temporal_difference_prefers_what_moves_less():
    still = clips(1, time=1).expand(-1, 5, -1, -1, -1)
    scores = baselines.temporal_difference(torch.cat([still, clips(1, seed=1)]))
    assert scores[0] == 0
    assert scores[1] < -0.5
