"""How long a training will take, said after its first steps."""

import os
import sys
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerState, TrainingArguments

from gtsvj_reward.progress import Forecast


class HowLong(TrainerCallback):
    """Says it once, from the time of the first steps; evaluations and checkpoints are not in it."""

    forecast: Forecast | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Begin to count what is left."""
        self.forecast = Forecast("train", state.max_steps - state.global_step)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Leave out what came between two steps."""
        if self.forecast:
            self.forecast.skip(0)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        """Time a step."""
        said = self.forecast.part(1) if self.forecast else None
        silent = args.disable_tqdm or os.environ.get("TQDM_DISABLE")
        if said and state.is_world_process_zero and not silent:
            tqdm.write(said, file=sys.stderr)
