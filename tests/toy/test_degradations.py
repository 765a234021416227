import pytest
import torch

from gtsvj_reward.perturbations import PERTURBATIONS
from gtsvj_reward.toy.degradations import FAULTS, PIXEL_FAULTS, SCENE_FAULTS, degraded
from gtsvj_reward.toy.world import draw_scene, render


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def change(fault, severity, index=0):
    """Mean absolute change in grey levels."""
    scene = draw_scene(11, index)
    return (degraded(scene, {fault: severity}, generator()).float() - render(scene).float()).abs()


def test_no_fault_is_one_of_the_training_perturbations():
    assert not {*FAULTS} & {*PERTURBATIONS}
    assert set(FAULTS) == {*PIXEL_FAULTS, *SCENE_FAULTS}
    assert len(FAULTS) == 9


@pytest.mark.parametrize("fault", FAULTS)
def test_severity_zero_changes_nothing(fault):
    scene = draw_scene(12, 0)
    assert torch.equal(degraded(scene, {fault: 0.0}, generator()), render(scene))
    if fault in PIXEL_FAULTS:
        assert torch.equal(PIXEL_FAULTS[fault](render(scene), 0.0, generator()), render(scene))
    else:
        assert torch.equal(render(SCENE_FAULTS[fault](scene, 0.0, generator())), render(scene))


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_grow_with_severity_and_repeat_under_a_generator(fault):
    scene = draw_scene(13, 1)
    first, again, other = (degraded(scene, {fault: 0.7}, generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    if fault not in ("ghosting", "blur"):  # the two that draw nothing
        assert not torch.equal(first, other)
    mild, strong = (
        sum(change(fault, severity, index).mean().item() for index in range(8))
        for severity in (0.2, 0.9)
    )
    assert 0 < mild < strong


@pytest.mark.parametrize("fault", FAULTS)
def test_a_strong_fault_is_seen(fault):
    """At severity 0.8 a tenth of the frames at least changes by more than 30 levels somewhere."""
    shown = [
        (change(fault, 0.8, index).amax(dim=(1, 2, 3)) > 30).float().mean() for index in range(8)
    ]
    assert torch.stack(shown).mean() > 0.1


def test_stutter_repeats_frames_and_invents_none():
    scene = draw_scene(14, 0, text="one red square bouncing")
    clean, held = render(scene), degraded(scene, {"stutter": 0.5}, generator())
    same = [bool(torch.equal(held[i], held[i - 1])) for i in range(1, len(held))]
    assert sum(same) == round(0.7 * 0.5 * (len(held) - 1))
    for i in range(1, len(held)):
        assert torch.equal(held[i], held[i - 1] if same[i - 1] else clean[i])


def test_flicker_scales_whole_frames_within_its_range():
    frames = torch.full((17, 4, 4, 3), 100, dtype=torch.uint8)
    shown = PIXEL_FAULTS["flicker"](frames, 0.5, generator())
    assert (shown == shown[:, :1, :1, :1]).all()
    assert shown.min() >= 80
    assert shown.max() <= 120
    assert shown[:, 0, 0, 0].unique().numel() > 5


def test_jitter_shifts_by_no_more_than_it_says():
    frames = torch.zeros(17, 64, 64, 3, dtype=torch.uint8)
    frames[:, 30:34, 30:34] = 255
    moved = PIXEL_FAULTS["jitter"](frames, 0.6, generator()).float()[..., 0]
    grid = torch.arange(64.0)
    centres = (
        torch.stack([(moved.sum(2) * grid).sum(1), (moved.sum(1) * grid).sum(1)], 1)
        / moved.sum((1, 2))[:, None]
    )
    offsets = (centres - 31.5).abs()
    assert offsets.max() <= 3.01
    assert offsets.max() > 1.5


def test_noise_has_the_deviation_it_says():
    frames = torch.full((17, 32, 32, 3), 128, dtype=torch.uint8)
    noisy = PIXEL_FAULTS["noise"](frames, 0.5, generator()).float()
    assert noisy.std().item() == pytest.approx(20, rel=0.02)


def test_ghosting_is_an_exponential_trail():
    frames = torch.zeros(4, 2, 2, 3, dtype=torch.uint8)
    frames[0] = 200
    trail = PIXEL_FAULTS["ghosting"](frames, 0.8, generator())[:, 0, 0, 0].tolist()
    assert trail == [200, round(200 * 0.6), round(200 * 0.36), round(200 * 0.216)]


def test_colour_drift_starts_true_and_keeps_the_sum_of_its_gains():
    frames = torch.full((17, 2, 2, 3), 100, dtype=torch.uint8)
    drifted = PIXEL_FAULTS["colour_drift"](frames, 1.0, generator()).float()[:, 0, 0]
    assert drifted[0].tolist() == [100, 100, 100]
    assert (drifted[-1] - 100).abs().max() == 50
    assert abs(drifted[-1].sum().item() - 300) <= 1.5


def test_popping_hides_a_body_in_the_middle_and_brings_it_back():
    for index in range(20):
        scene = draw_scene(15, index)
        broken = SCENE_FAULTS["popping"](scene, 0.5, generator(index))
        opacity = torch.stack([body.opacity for body in broken.bodies])
        assert (opacity[:, [0, -1]] == 1).all()
        assert (opacity == 0).sum() == round(0.4 * 0.5 * scene.frames)


def test_morphing_starts_true_and_ends_by_its_severity():
    scene = draw_scene(16, 0, text="one blue square drifting")
    broken = SCENE_FAULTS["morphing"](scene, 0.6, generator())
    assert torch.equal(render(broken)[0], render(scene)[0])
    assert broken.bodies[0].other_shape != "square"
    assert broken.bodies[0].morph.max().item() == pytest.approx(0.6)
    whole = SCENE_FAULTS["morphing"](scene, 1.0, generator())
    body = whole.bodies[0]
    turned = type(body)(**{**vars(body), "shape": body.other_shape, "morph": torch.zeros(17)})
    assert torch.equal(
        render(whole)[-1], render(type(scene)(**{**vars(scene), "bodies": (turned,)}))[-1]
    )


def test_faults_add_up_and_unknown_ones_are_refused():
    scene = draw_scene(17, 0)
    both = degraded(scene, {"blur": 0.5, "flicker": 0.5}, generator())
    blurred = PIXEL_FAULTS["blur"](
        PIXEL_FAULTS["flicker"](render(scene), 0.5, generator()), 0.5, generator()
    )
    assert torch.equal(both, blurred)
    with pytest.raises(ValueError, match="no fault 'grain': expected one of flicker"):
        degraded(scene, {"grain": 0.5}, generator())
    with pytest.raises(ValueError, match=r"severity of 'blur' must lie in 0\.\.1, got 1\.5"):
        degraded(scene, {"blur": 1.5}, generator())
