"""What watches a training run."""

import logging
from typing import Any

from transformers import TrainerCallback, TrainerState

logger = logging.getLogger(__name__)


class SaturationWatch(TrainerCallback):
    """Warns once when the negatives have become trivial (paper section 5.3, Fig. 6).

    Saturated: the loss has reached `share` of its bound, and the gradient norm has fallen below a
    third of its peak.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.peak = 0.0
        self.step: int | None = None

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: Any,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Look at one entry of the log."""
        if logs is None or "grad_norm" not in logs or "bound_share" not in logs:
            return
        norm = float(logs["grad_norm"])
        self.peak = max(self.peak, norm)
        if self.step is None and logs["bound_share"] >= self.share and norm < self.peak / 3:
            self.step = state.global_step
            logger.warning(
                "saturated at step %d: %.0f%% of the loss's bound, gradient norm %.3g after a peak "
                "of %.3g. These negatives have become trivial: raise the share of perturbations, "
                "calibrate them with `gtsvj calibrate-perturbations`, or stop here",
                state.global_step,
                100 * logs["bound_share"],
                norm,
                self.peak,
            )
