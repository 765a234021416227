import math

import pytest
import torch

from gtsvj_reward.toy.world import (
    COLOURS,
    FRAMES,
    GRAVITY,
    MOTIONS,
    SIZE,
    Scene,
    captions,
    draw_scene,
    render,
    with_bodies,
)


def coloured(scene: Scene, frame: int):
    """Share of pixels within a tenth of the bodies' colour."""
    image = render(scene)[frame].float() / 255
    wanted = torch.tensor(scene.bodies[-1].colour)
    return ((image - wanted).abs().amax(-1) < 0.1).float().mean().item()


def test_a_key_gives_a_clip_and_no_other():
    first, again, other = (render(draw_scene(7, index)) for index in (3, 3, 4))
    assert first.shape == (FRAMES, SIZE, SIZE, 3)
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_captions_are_drawn_evenly_and_can_be_asked_for():
    assert len(set(captions())) == 96
    drawn = [draw_scene(1, index).caption for index in range(400)]
    assert set(drawn) <= set(captions())
    assert len(set(drawn)) > 80
    for text in captions()[::7]:
        assert draw_scene(1, 0, text=text).caption == text


def test_an_unknown_caption_is_refused():
    with pytest.raises(
        ValueError, match=r"no caption 'three pink cats'; captions are like 'one red"
    ):
        draw_scene(1, 0, text="three pink cats")


@pytest.mark.parametrize("motion", MOTIONS)
def test_bodies_stay_in_the_frame_and_move_by_their_law(motion):
    for index in range(20):
        scene = draw_scene(2, index, text=f"one blue circle {motion}")
        body = scene.bodies[0]
        assert body.track.min() >= body.radius - 1e-3
        assert body.track.max() <= SIZE - body.radius + 1e-3
        speed = body.track.diff(dim=0).norm(dim=1)
        turn = body.track.diff(dim=0, n=2)
        if motion == "drifting":  # constant velocity
            assert turn.abs().max() < 1e-3
            assert 0.6 <= speed.mean() <= 1.2
        if motion == "bouncing":  # constant speed, except in the frame of a bounce
            assert (speed - speed.max()).abs().lt(1e-2).float().mean() > 0.5
            assert turn.abs().max() > 1
        if motion == "falling":  # constant acceleration downwards until it meets the floor
            assert turn[0, 1].item() == pytest.approx(GRAVITY, abs=1e-4)
            assert body.track[:, 1].argmax() > 0
        if motion == "orbiting":
            assert speed.mean() > 2


def test_a_bounce_mirrors_the_velocity():
    scene = draw_scene(3, 0, text="one red circle bouncing")
    steps = scene.bodies[0].track.diff(dim=0).abs()
    # |velocity| per axis is the same in every frame that no bounce falls into.
    for axis in range(2):
        common = steps[:, axis].median()
        assert (steps[:, axis] - common).abs().lt(1e-3).sum() >= len(steps) // 2
        assert steps[:, axis].max() <= common + 1e-3


@pytest.mark.parametrize("colour", COLOURS)
def test_the_colour_of_the_caption_is_seen(colour):
    scene = draw_scene(4, 0, text=f"one {colour} circle drifting")
    radius = 0.9 * scene.bodies[0].radius
    assert coloured(scene, 0) == pytest.approx(math.pi * radius**2 / SIZE**2, rel=0.15)
    assert coloured(with_bodies(scene, scene.bodies), 8) > 0.02


def test_two_bodies_show_twice_where_they_do_not_touch():
    scene = draw_scene(5, 1, text="two green squares drifting")
    gap = (scene.bodies[0].track[0] - scene.bodies[1].track[0]).norm()
    assert gap > scene.bodies[0].radius + scene.bodies[1].radius
    alone = [with_bodies(scene, (body,)) for body in scene.bodies]
    colours = [render(part)[0].float() for part in alone]
    both, empty = render(scene)[0].float(), render(with_bodies(scene, (hidden(scene),)))[0].float()
    assert torch.equal(both - empty, colours[0] - empty + colours[1] - empty)


def hidden(scene: Scene):
    """A body of the scene that is not there."""
    body = scene.bodies[0]
    return type(body)(**{**vars(body), "opacity": torch.zeros(scene.frames)})


def test_later_bodies_hide_earlier_ones():
    scene = draw_scene(6, 0, text="two red circles drifting")
    first, second = scene.bodies
    over = type(second)(**{**vars(second), "track": first.track, "radius": first.radius + 2})
    covered = with_bodies(scene, (first, over))
    assert torch.equal(render(covered), render(with_bodies(scene, (over,))))
    assert not torch.equal(render(covered), render(with_bodies(scene, (first,))))
