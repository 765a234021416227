"""A small video world with known truth, and the models that were trained on it."""

from gtsvj_reward.toy.degradations import FAULTS as FAULTS, degraded as degraded
from gtsvj_reward.toy.raters import ASPECTS as ASPECTS, compare as compare, rate as rate
from gtsvj_reward.toy.world import (
    FPS as FPS,
    FRAMES as FRAMES,
    SIZE as SIZE,
    Scene as Scene,
    captions as captions,
    draw_scene as draw_scene,
    render as render,
)
