"""Judges fitted in one call: energies, ratings, comparisons, each alone and together."""

from dataclasses import replace

import pytest
import torch

from gtsvj_reward.assets import asset_path
from gtsvj_reward.judge import Aspect, load_judge, save_judge
from gtsvj_reward.judge.card import model_card
from gtsvj_reward.judge.reading import feature_widths
from gtsvj_reward.losses import bradley_terry_loss, contrastive_loss
from gtsvj_reward.training.closed_form.examples import Compared, Contrast, Rated, connected
from gtsvj_reward.training.closed_form.features import FeatureCache, content_id
from gtsvj_reward.training.closed_form.refit import refit
from tests.judge.test_moment_judge import moment_judge
from tests.tiny import clips

SHARP = (Aspect(name="sharp", low=1, high=5), Aspect(name="calm", low=1, high=5))


def lot(count, seed, **changes):
    """Clips whose contrast (a spatial moment) and movement vary from clip to clip."""
    latents = clips(count, seed=seed, **changes)
    generator = torch.Generator().manual_seed(seed + 100)
    sharp = torch.rand(count, generator=generator)
    calm = torch.rand(count, generator=generator)
    still = latents[:, :1].expand_as(latents)
    moving = calm[:, None, None, None, None]
    return (0.3 + sharp[:, None, None, None, None]) * (moving * still + (1 - moving) * latents), {
        "sharp": sharp,
        "calm": calm,
    }


def rated(latents, qualities, noise=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for index, clip in enumerate(latents):
        scores = {
            name: float(
                (1 + 4 * values[index] + noise * torch.randn((), generator=generator)).clamp(1, 5)
            )
            for name, values in qualities.items()
        }
        rows.append(Rated(clip=lambda clip=clip: clip, scores=scores, group=str(index)))
    return rows


def contrast(latents, seed=0):
    """Clips against blurred copies of themselves."""
    blurred = (latents + latents.roll(1, 3) + latents.roll(1, 4)) / 3
    return [
        Contrast(lambda a=a: a, lambda b=b: b, (f"clip {index}", f"clip {index}"))
        for index, (a, b) in enumerate(zip(latents, blurred, strict=True))
    ]


def compared(latents, quality):
    pairs = []
    for index in range(0, len(latents) - 1, 2):
        label = 1 if quality[index] > quality[index + 1] else -1
        first, second = latents[index], latents[index + 1]
        pairs.append(
            Compared(lambda a=first: a, lambda b=second: b, label, (str(index), str(index + 1)))
        )
    return pairs


def voted(latents, quality):
    """The same pairs with the probability that raters of that quality would give."""
    return [
        replace(
            pair,
            label=int(gap.sign()),
            probability=torch.sigmoid(gap).item(),
            weight=2.0,
        )
        for pair, gap in zip(
            compared(latents, quality), 4 * (quality[:-1:2] - quality[1::2]), strict=True
        )
    ]


def correlation(first, second):
    return torch.corrcoef(torch.stack([first.double(), second.double()]))[0, 1].item()


@pytest.fixture(scope="module")
def fresh():
    return moment_judge(filled=False)


@pytest.fixture(scope="module")
def cache(fresh):
    return FeatureCache(fresh)


@pytest.fixture(scope="module")
def energy_judge(fresh, cache):
    return refit(fresh, cache, contrast=contrast(lot(40, 1)[0]))


@pytest.fixture(scope="module")
def aspect_judge(energy_judge, cache):
    return refit(energy_judge, cache, ratings=rated(*lot(60, 2), noise=0.3), aspects=SHARP)


def test_the_energy_tells_clips_that_it_has_not_seen_from_their_blurred_copies(energy_judge):
    pairs = contrast(lot(20, 7)[0])
    better = energy_judge.energies(torch.stack([pair.positive() for pair in pairs])).mean(1)
    worse = energy_judge.energies(torch.stack([pair.negative() for pair in pairs])).mean(1)
    assert (better < worse).float().mean() > 0.9
    assert energy_judge.config.stage == "discriminator"
    assert energy_judge.config.reward_std > 0


def test_the_energy_is_the_least_of_the_contrastive_loss_and_its_penalty(energy_judge):
    pairs = contrast(lot(40, 1)[0])
    sides = [torch.stack([getattr(p, s)() for p in pairs]) for s in ("positive", "negative")]
    head = energy_judge.head
    features = [head.standardised(energy_judge.moments(side).mean(1)).double() for side in sides]
    weight = head.output.weight[0].double().clone().requires_grad_()
    bias = head.output.bias[0].double().clone().requires_grad_()
    beta = energy_judge.config.training["energy: beta"]
    penalties = energy_judge.config.training["energy: penalty of each tap"]
    each = torch.tensor(penalties).double().repeat_interleave(torch.tensor(WIDTHS))
    energies = [side @ weight + bias for side in features]
    # Rows have mean weight 1 in the fit: each of the 2 n rows counts beta / beta, that is n times
    # the mean over pairs divided by beta.
    loss = contrastive_loss(*energies, beta, "mean") * len(pairs) / beta
    (loss + (each * weight.square()).sum()).backward()
    assert bias.grad.abs() < 1e-2
    assert weight.grad.abs().max() < 2e-2 * (each * weight.detach()).abs().max()


WIDTHS = (7 * 4, 7 * 32, 7 * 32, 7 * 32)


def test_aspects_are_learnt_with_the_energy_kept(aspect_judge, energy_judge):
    latents, qualities = lot(40, 8)
    outputs = aspect_judge(latents)
    for column, aspect in enumerate(SHARP):
        assert correlation(outputs.aspects[..., column].mean(1), qualities[aspect.name]) > 0.8
    assert aspect_judge.config.has_energy
    kept = aspect_judge.head.energy(aspect_judge.head.standardised(aspect_judge.moments(latents)))
    torch.testing.assert_close(kept[..., 0], energy_judge.energies(latents))


def test_left_out_figures_foretell_new_clips(aspect_judge):
    latents, qualities = lot(60, 9)
    told = aspect_judge.config.training["aspects: left-out spearman"]
    aspects = aspect_judge(latents).aspects.mean(1)
    for column, aspect in enumerate(SHARP):
        assert (
            abs(correlation(aspects[:, column], qualities[aspect.name]) - told[aspect.name]) < 0.2
        )


def test_ratings_alone_make_a_judge(fresh, cache):
    judge = refit(fresh, cache, ratings=rated(*lot(60, 2)), aspects=SHARP)
    latents, qualities = lot(30, 8)
    assert correlation(judge(latents).aspects[..., 0].mean(1), qualities["sharp"]) > 0.8
    assert not judge.config.has_energy


def test_comparisons_alone_make_a_judge(fresh, cache):
    latents, qualities = lot(120, 3)
    judge = refit(
        fresh, cache, comparisons=compared(latents, qualities["sharp"]), loss=bradley_terry_loss
    )
    latents, qualities = lot(40, 8)
    output = judge(latents)
    assert correlation(output.scores.mean(1), qualities["sharp"]) > 0.7
    assert output.aspects is None
    assert judge.config.stage == "preference"
    assert (output.leverage > 0).all()


def test_votes_teach_how_much_better(fresh, cache):
    latents, qualities = lot(80, 3)
    fitted = [
        refit(fresh, cache, comparisons=make(latents, qualities["sharp"]), loss=bradley_terry_loss)
        for make in (voted, compared)
    ]
    latents, qualities = lot(40, 8)
    votes, sides = (judge(latents).scores.mean(1) for judge in fitted)
    assert correlation(votes, qualities["sharp"]) > 0.8
    # Sides that nobody contradicts pull further apart than votes of sigmoid(4 difference).
    assert votes.std() < 0.8 * sides.std(), "the votes count as sides"
    with pytest.raises(ValueError, match=r"comparison 1 .* 1\.5 .*\(1 of 2 comparisons\)"):
        refit(
            fresh,
            cache,
            comparisons=[
                replace(pair, probability=0.5 + index)
                for index, pair in enumerate(voted(latents, qualities["sharp"])[:2])
            ],
            loss=bradley_terry_loss,
        )


def test_comparisons_weight_the_aspects(energy_judge, cache):
    latents, qualities = lot(80, 4)
    judge = refit(
        energy_judge,
        cache,
        ratings=rated(*lot(60, 2)),
        aspects=SHARP,
        comparisons=compared(latents, qualities["calm"]),
        loss=bradley_terry_loss,
    )
    weights = judge.preference.weight[0]
    assert weights[1] > 2 * weights[0].abs()


def test_noise_and_leverage_cover_ratings_of_new_clips(fresh, cache):
    latents, qualities = lot(80, 2)
    judge = refit(fresh, cache, ratings=rated(latents, qualities, noise=0.4), aspects=SHARP)
    latents, qualities = lot(200, 11)
    truth = rated(latents, qualities, noise=0.4, seed=5)
    output = judge(latents)
    for column, aspect in enumerate(SHARP):
        targets = (torch.tensor([row.scores[aspect.name] for row in truth]) - 1) / 4
        spread = (judge.head.noise[column, column] * (1 + output.leverage)).sqrt()
        z = (targets - output.aspects[..., column].mean(1)) / spread
        assert 0.6 < (z.abs() < 1.2816).float().mean() < 0.95  # 80% if all is well
    foreign = judge(4 * latents).leverage
    assert foreign.min() > output.leverage.median()


def test_what_was_read_is_not_read_again(fresh, tmp_path):
    cache = FeatureCache(fresh, tmp_path, batch_size=4)
    latents, _ = lot(6, 1)
    loads = [lambda clip=clip: clip for clip in latents]
    names = cache.read([*loads, loads[0]], "clips")
    assert cache.computed == 6
    assert names[0] == names[6] == content_id(latents[0])
    again = FeatureCache(fresh, tmp_path)
    again.read(loads, "clips")
    assert again.computed == 0
    assert torch.equal(again.features(names), cache.features(names))
    other = FeatureCache(moment_judge(filled=False, taps=[0, 2]), tmp_path)
    other.read(loads, "clips")
    assert other.computed == 6
    # Features of another block are as many, and would make a wrong judge without an error.
    alike = FeatureCache(moment_judge(filled=False, taps=[0, 1, 2, 3]))
    assert tuple(feature_widths(alike.judge.backbone, alike.judge.config)) == WIDTHS
    for foreign in (other, alike):
        with pytest.raises(ValueError, match="a judge that reads clips in another way"):
            refit(fresh, foreign, contrast=contrast(latents))


def test_damaged_features_are_computed_again(fresh, tmp_path, caplog):
    latents, _ = lot(3, 1)
    loads = [lambda clip=clip: clip for clip in latents]
    first = FeatureCache(fresh, tmp_path)
    names = first.read(loads, "clips")
    file = first.folder / f"{names[1]}.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    for computed in (1, 0):
        again = FeatureCache(fresh, tmp_path)
        again.read(loads, "clips")
        assert again.computed == computed
        torch.testing.assert_close(again.features(names), first.features(names))
    (warning,) = caplog.messages
    assert warning == f"1 damaged files of features were computed again, the first: {file}"


def test_batches_of_features_are_those_of_single_clips(fresh):
    latents, _ = lot(5, 1)
    loads = [lambda clip=clip: clip for clip in [*latents, clips(1, time=4, seed=3)[0]]]
    tables = []
    for size in (1, 3):
        cache = FeatureCache(fresh, batch_size=size)
        tables.append(cache.features(cache.read(loads, "clips")))
    torch.testing.assert_close(*tables, rtol=1e-4, atol=1e-5)


def test_a_fitted_judge_loads_bitwise(aspect_judge, tmp_path):
    save_judge(aspect_judge, tmp_path)
    loaded = load_judge(tmp_path, backbone=aspect_judge.backbone)
    latents = lot(3, 5)[0]
    for got, expected in zip(loaded(latents), aspect_judge(latents), strict=True):
        assert torch.equal(got, expected)


def test_connected_groups_hang_together():
    pairs = [("a", "b"), ("c", "d"), ("b", "e"), ("f", "f")]
    assert connected(pairs).tolist() == [0, 1, 0, 2]


def test_a_clip_compared_with_itself_is_refused(fresh, cache):
    clip = lot(1, 1)[0][0]
    with pytest.raises(ValueError, match="comparison 0 is of a clip with itself"):
        refit(
            fresh,
            cache,
            comparisons=[Compared(lambda: clip, lambda: clip.clone(), 1, ("a", "b"))],
            loss=bradley_terry_loss,
        )


def calm(*values):
    """Ratings of one aspect, of as many clips."""
    clip = lot(1, 1)[0][0]
    return [
        Rated(lambda: clip, {"sharp": 1 + i % 3, "calm": value}, str(i))
        for i, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        (calm(2, 3, 6), r"rating 2 of 'calm' is 6, outside its scale 1\.\.5"),
        (calm(2, 3, float("nan")), r"rating 2 of 'calm' is NaN \(1 such ratings\)"),
        (calm(3, 3, 3, 3), "'calm' of rated clips: all 4 are 3: label more clips"),
        (calm(3, 4), "'sharp' of rated clips: labels in 2 groups, at least 3"),
    ],
)
def test_ratings_that_teach_nothing_are_refused(fresh, cache, ratings, message):
    with pytest.raises(ValueError, match=message):
        refit(fresh, cache, ratings=ratings, aspects=SHARP)


def test_an_aspect_without_ratings_is_named(fresh, cache):
    bare = [replace(row, scores={"sharp": row.scores["sharp"]}) for row in calm(1, 2, 3, 4)]
    with pytest.raises(ValueError, match="'calm' of rated clips: labels in 0 groups"):
        refit(fresh, cache, ratings=bare, aspects=SHARP)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (1, "labels of comparisons: all 4 are 1: .* swap the clips of half"),
        (2, r"comparison 0 has the label 2 \(4 of 4 comparisons"),
    ],
)
def test_comparisons_of_one_label_are_refused(fresh, cache, label, message):
    pairs = compared(*[part[:8] for part in (lot(60, 2)[0], torch.arange(60))])
    with pytest.raises(ValueError, match=message):
        refit(
            fresh,
            cache,
            comparisons=[replace(pair, label=label) for pair in pairs],
            loss=bradley_terry_loss,
        )


def test_fewer_rated_clips_than_aspects_are_a_warning(fresh, cache, caplog):
    latents, qualities = lot(4, 2)
    six = {str(i): (values + i / 7) % 1 for i, values in enumerate([*qualities.values()] * 3)}
    aspects = [Aspect(name=name, low=1, high=5) for name in six]
    for count, warnings in ((6, 1), (4, 0)):
        caplog.clear()
        cache.warned.clear()
        refit(fresh, cache, ratings=rated(latents, six), aspects=aspects[:count])
        assert len(caplog.messages) == warnings, caplog.messages
        assert all(m.startswith("4 clips are rated, for 6 aspects") for m in caplog.messages)


def test_nothing_to_fit_is_refused(fresh, cache):
    with pytest.raises(ValueError, match="nothing to fit"):
        refit(fresh, cache)


def test_new_comparisons_keep_the_aspects_and_new_ratings_the_energy(aspect_judge, cache, caplog):
    latents, qualities = lot(80, 4)
    judge = refit(
        aspect_judge,
        cache,
        comparisons=compared(latents, qualities["calm"]),
        loss=bradley_terry_loss,
    )
    for part in ("aspects", "leverage"):
        assert torch.equal(getattr(judge(latents), part), getattr(aspect_judge(latents), part))
    assert judge.preference.weight[0, 1] > 2 * judge.preference.weight[0, 0].abs()
    assert {"energy: pairs", "aspects: clips", "preference: pairs"} <= judge.config.training.keys()
    record = judge.config.training
    clips_of = [name[:12] for name in map(content_id, lot(60, 2)[0])]
    assert record["aspects: content"] == sorted(clips_of)
    first, second = (content_id(latents[index])[:12] for index in (0, 1))
    assert f"{first} {second}" in record["preference: content"]
    assert (record["preference: added"], record["preference: withdrawn"]) == (40, 0)
    assert "| aspects: content | 60 entries in `config.json` |" in model_card(judge.config)
    assert not caplog.messages, "nothing was lost"
    cache.warned.clear()
    more = [*rated(*lot(60, 2))[:50], *rated(*lot(3, 6))]
    again = refit(judge, cache, ratings=more, aspects=SHARP[:1])
    assert "loses its weights of the aspects, from comparisons" in caplog.text
    counts = [again.config.training[f"aspects: {name}"] for name in ("added", "withdrawn")]
    assert counts == [3, 10]
    assert [aspect.name for aspect in again.config.aspects] == ["sharp"]
    assert torch.equal(again.head.energy.weight, aspect_judge.head.energy.weight)
    assert not any(name.startswith("preference") for name in again.config.training)


def test_a_bundled_judge_of_aspects_is_refitted_to_comparisons_alone(caplog):
    """With an energy of its own: the aspects, and their weights in the score, are gone."""
    judge = load_judge(asset_path("gtsvj-toy"))
    latents = torch.randn(24, 5, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    pairs = [
        Compared(lambda a=a: a, lambda b=b: b, 1 if a.std() > b.std() else -1, (str(i), str(i)))
        for i, (a, b) in enumerate(zip(latents[::2], latents[1::2], strict=True))
    ]
    found = refit(
        judge,
        FeatureCache(judge),
        contrast=[Contrast(p.first, p.second, p.groups) for p in pairs],
        comparisons=pairs,
        loss=bradley_terry_loss,
    )
    assert (found.config.stage, found.config.aspects) == ("preference", ())
    names = ", ".join(aspect.name for aspect in judge.config.aspects)
    assert caplog.messages == [
        f"the judge that is refitted loses its aspects ({names}); pass their `ratings` as well to "
        "keep them"
    ]
    assert found.config.aspect_weights is None
