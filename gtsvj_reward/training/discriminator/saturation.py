"""What watches a training run."""

import logging
from collections.abc import Mapping
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

    def replay(self, state: TrainerState) -> None:
        """Take over what an interrupted run has logged."""
        self.peak, self.step = 0.0, None
        for entry in state.log_history:
            self.look(entry, int(entry["step"]))

    def look(self, logs: Mapping[str, float], step: int) -> bool:
        """Look at one entry of the log; whether it is the first that is saturated."""
        if "grad_norm" not in logs or "bound_share" not in logs:
            return False
        norm = float(logs["grad_norm"])
        self.peak = max(self.peak, norm)
        if self.step is not None or logs["bound_share"] < self.share or norm >= self.peak / 3:
            return False
        self.step = step
        return True

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Go on from what was logged before."""
        self.replay(state)

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: Any,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Warn at the entry with which training is saturated."""
        if logs is not None and self.look(logs, state.global_step):
            logger.warning(
                "saturated at step %d: %.0f%% of the loss's bound, gradient norm %.3g after a peak "
                "of %.3g. These negatives have become trivial: raise the share of perturbations, "
                "calibrate them with `gtsvj calibrate-perturbations`, or stop here",
                state.global_step,
                100 * logs["bound_share"],
                float(logs["grad_norm"]),
                self.peak,
            )
