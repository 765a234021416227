import torch

from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.toy.degradations import PIXEL_FAULTS
from gtsvj_reward.toy.measures import colour_unrest, steadiness
from gtsvj_reward.toy.world import draw_scene, render


def test_unrest_of_a_clip_worked_out_by_hand():
    # Red alternates between 0 and 20, green is constant, blue rises 0, 6, 12: deviations over time
    # of √(800 / 9) (mean 40 / 3 over 20, 0, 20), 0 and √24.
    frames = torch.zeros(1, 3, 2, 2, 3, dtype=torch.uint8)
    frames[0, 0::2, :, :, 0] = 20
    frames[0, :, :, :, 1] = 7
    frames[0, :, :, :, 2] = torch.tensor([0, 6, 12])[:, None, None]
    expected = ((800 / 9) ** 0.5 + 24**0.5) / 3
    torch.testing.assert_close(colour_unrest(frames), torch.tensor([expected]))
    torch.testing.assert_close(steadiness(frames), -torch.tensor([expected]).log())


def test_flicker_and_drift_are_seen_in_every_scene_and_what_leaves_colours_alone_is_not():
    clean = torch.stack([render(draw_scene(5, index)) for index in range(24)])
    before = steadiness(clean)
    for kind, apply in PIXEL_FAULTS.items():
        faulty = torch.stack(
            [apply(clip, 0.8, keyed_generator(6, index)) for index, clip in enumerate(clean)]
        )
        lost = before - steadiness(faulty)
        if kind in ("flicker", "colour_drift"):
            assert lost.min() > 0.2, kind
        elif kind != "jitter":  # shifts what is in the frame, and its mean colour with it
            assert lost.mean() < 0.2, kind
