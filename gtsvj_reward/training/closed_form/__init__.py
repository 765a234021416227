"""Closed-form judges: each stage of the paper solved exactly on moments."""

from gtsvj_reward.training.closed_form.examples import (
    Compared as Compared,
    Contrast as Contrast,
    Rated as Rated,
)
from gtsvj_reward.training.closed_form.features import FeatureCache as FeatureCache, Shown as Shown
from gtsvj_reward.training.closed_form.images import (
    first_frames_swapped as first_frames_swapped,
    with_image as with_image,
)
from gtsvj_reward.training.closed_form.prompts import (
    shown as shown,
    shown_or_not as shown_or_not,
    swapped as swapped,
)
from gtsvj_reward.training.closed_form.refit import refit as refit
