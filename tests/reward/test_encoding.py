"""How a judge wants videos read."""

import pytest

from gtsvj_reward.judge import Geometry
from gtsvj_reward.reward.encoding import Reading, reading_for
from tests.tiny import tiny_judge


def test_what_was_trained_on_in_one_way_only_need_not_be_said():
    # 5 latent frames of a compression of 4 are 17 frames; 8 pixels per latent.
    fixed = Geometry(latent_frames=(5, 5), height=(4, 4), width=(6, 6), fps=(8.0, 8.0))
    config = tiny_judge(geometry=fixed).config
    assert reading_for(config) == Reading(fps=8.0, height=32, width=48, num_frames=17)
    given = reading_for(config, fps=10, height=64, width=80, num_frames=9)
    assert given == Reading(fps=10.0, height=64, width=80, num_frames=9)


def test_what_was_trained_on_in_several_ways_must_be_said():
    mixed = Geometry(latent_frames=(3, 7), height=(4, 4), width=(6, 8), fps=(8.0, 8.0))
    config = tiny_judge(geometry=mixed).config
    with pytest.raises(ValueError, match="say how to read the videos") as refused:
        reading_for(config)
    for part in ("--width (trained on: 48 to 64)", "--num_frames (trained on: 9 to 25)"):
        assert part in str(refused.value)
    assert "--fps" not in str(refused.value)
    assert "--height" not in str(refused.value)
    assert reading_for(config, width=48, num_frames=9) == Reading(
        fps=8.0, height=32, width=48, num_frames=9
    )
    with pytest.raises(ValueError, match=r"--fps \(trained on: unknown\), --height"):
        reading_for(tiny_judge(geometry=None).config, width=48, num_frames=9)


def test_videos_of_any_length_are_read_up_to_the_longest():
    geometry = Geometry(latent_frames=(3, 7), height=(4, 4), width=(6, 6), fps=(8.0, 8.0))
    config = tiny_judge(geometry=geometry).config
    found = reading_for(config, any_length=True)
    assert found == Reading(fps=8.0, height=32, width=48, num_frames=25, at_most=True)
    given = reading_for(config, num_frames=9, any_length=True)
    assert given == Reading(fps=8.0, height=32, width=48, num_frames=9)
    with pytest.raises(ValueError, match=r"--num_frames \(trained on: unknown\)"):
        reading_for(tiny_judge(geometry=None).config, any_length=True)
