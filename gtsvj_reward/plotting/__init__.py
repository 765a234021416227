"""Pictures of clips, energies and training runs; needs matplotlib (the extra `plot`)."""

from gtsvj_reward.plotting.calibration import plot_calibration as plot_calibration
from gtsvj_reward.plotting.film import plot_film_strips as plot_film_strips
from gtsvj_reward.plotting.training import plot_training as plot_training
from gtsvj_reward.plotting.trajectory import (
    plot_trajectory as plot_trajectory,
    step_spans as step_spans,
)
