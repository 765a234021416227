"""Pictures of clips, energies and training runs; needs matplotlib (the extra `plot`)."""

from gtsvj_reward.plotting.alignment import plot_alignment as plot_alignment
from gtsvj_reward.plotting.calibration import plot_calibration as plot_calibration
from gtsvj_reward.plotting.canvas import check_matplotlib as check_matplotlib
from gtsvj_reward.plotting.film import plot_film_strips as plot_film_strips
from gtsvj_reward.plotting.stages import plot_stage as plot_stage
from gtsvj_reward.plotting.training import plot_training as plot_training
from gtsvj_reward.plotting.trajectory import (
    plot_trajectory as plot_trajectory,
    step_spans as step_spans,
)
