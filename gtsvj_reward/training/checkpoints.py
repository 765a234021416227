"""Trainers with atomic checkpoints: written into a hidden folder, renamed at the end."""

import logging
import math
import shutil
import socket
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list, gather_object
from transformers import Trainer, TrainerControl, TrainerState

from gtsvj_reward.files import part_of, put_folder, remove_folder, remove_parts_in, write_text
from gtsvj_reward.judge import VideoJudge, save_judge
from gtsvj_reward.judge.checkpoint import load_trained_weights, read_config
from gtsvj_reward.training.processes import only_run
from gtsvj_reward.training.resume import (
    SETTINGS_FILE,
    STATE_FILE,
    Settings,
    checkpoints_in,
    newest_whole,
    problem_of,
    refuse_changes,
    settings_text,
)

logger = logging.getLogger(__name__)


class CheckpointTrainer(Trainer):
    """A `transformers.Trainer` that saves config, adapter and head, never the base weights.

    Beside them are Trainer's own files for resuming, and the settings of the run. A checkpoint gets
    its name only after all of it was written and read back, so a run that is killed while it saves,
    or fills the disk, keeps the earlier checkpoints.
    """

    control: TrainerControl
    hidden: Path | None = None
    """Where a checkpoint is being written."""

    @property
    def judge(self) -> VideoJudge:
        """The judge in training, out of any wrapper."""
        judge: VideoJudge = self.accelerator.unwrap_model(self.model).judge
        return judge

    @property
    def examples_per_step(self) -> int:
        """Of all processes."""
        args = self.args
        count: int = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        return count

    def batches_per_epoch(self) -> int:
        """Of each process."""
        processes: int = self.args.world_size
        batch: int = self.args.train_batch_size
        examples = len(self.train_dataset)
        if self.args.dataloader_drop_last:
            return examples // batch // processes
        return math.ceil(math.ceil(examples / batch) / processes)

    def total_steps(self) -> int:
        """Steps of the whole run."""
        if self.args.max_steps > 0:
            return int(self.args.max_steps)
        accumulated: int = self.args.gradient_accumulation_steps
        epochs: float = self.args.num_train_epochs
        return math.ceil(epochs * max(1, math.ceil(self.batches_per_epoch() / accumulated)))

    def resume_settings(self) -> Settings:
        """What a run must have in common with the one that it resumes."""
        raise NotImplementedError

    def resume_defaults(self) -> Settings:
        """Defaults of those settings; what has none must be there on both sides."""
        raise NotImplementedError

    def finish(self) -> dict[str, float]:
        """Evaluate, measure the scale of scores, record the run, save the judge.

        Returns:
            The metrics of that last evaluation.
        """
        raise NotImplementedError

    def run(self) -> None:
        """Train, from where an interrupted run in `output_dir` stopped, and write the judge.

        A run that has all its steps is not trained further, and the judge that it wrote stays.

        Raises:
            FolderInUseError: if another run writes to `output_dir`.
            ValueError: if the run there has other settings, or processes see other checkpoints.
            KeyboardInterrupt: after Ctrl-C, with what to do to go on.
            OSError: if a file cannot be read or written, likewise.
        """
        with only_run(self.args.output_dir):
            checkpoint = self.resume_point()
            try:
                if checkpoint is None:
                    self.train()
                elif steps_in(checkpoint) < self.total_steps():
                    logger.warning(
                        "resuming from %s; choose another output_dir to start anew", checkpoint
                    )
                    self.train(resume_from_checkpoint=str(checkpoint))
                elif self.is_finished(steps_in(checkpoint)):
                    return
                else:
                    self.restore(checkpoint)
                self.finish()
                self.save_state()
            except KeyboardInterrupt:
                raise KeyboardInterrupt(self.how_to_go_on()) from None
            except OSError as error:
                raise OSError(f"{error}; {self.how_to_go_on()}") from error

    def resume_point(self) -> Path | None:
        """The checkpoint to resume from: the requested one, or the newest complete one.

        Raises:
            ValueError: if the one that was asked for is not whole, a process does not see it, or it
                was trained with other settings.
        """
        folder, given = Path(self.args.output_dir), self.args.resume_from_checkpoint
        if self.args.should_save:
            remove_parts_in(folder)
        self.accelerator.wait_for_everyone()
        wanted = checkpoints_in(folder) if given is None else [Path(given)]
        found = {path.name: problem_of(path) for path in wanted}
        if given is not None:
            folder = Path(given).parent
        checkpoint = newest_whole(folder, gather_object([(socket.gethostname(), found)]))
        if given is not None and checkpoint is None:
            raise ValueError(f"cannot resume from {given}: {found[Path(given).name]}")
        if checkpoint is not None:
            refuse_changes(checkpoint, self.resume_settings(), self.resume_defaults())
        return checkpoint

    def is_finished(self, steps: int) -> bool:
        """Whether the judge of all steps is in `output_dir`; it is read if it is."""
        folder = Path(self.args.output_dir)
        done = (
            problem_of(folder, resumable=False) is None
            and steps_in(folder) == steps
            and read_config(folder).training.get("steps") == steps
        )
        if not all(gather_object([done])):
            return False
        logger.warning(
            "%s holds the judge of all %d steps, which stays as it is; to train on, raise "
            "`max_steps` or `num_train_epochs`, to start anew, choose another output_dir",
            folder,
            steps,
        )
        self.state = TrainerState.load_from_json(str(folder / STATE_FILE))
        load_trained_weights(self.judge, folder)
        self.judge.config = read_config(folder)
        return True

    def restore(self, checkpoint: Path) -> None:
        """Take over a checkpoint after which no step is left."""
        self.state = TrainerState.load_from_json(str(checkpoint / STATE_FILE))
        self._load_from_checkpoint(str(checkpoint))
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
            self._load_best_model()

    def how_to_go_on(self) -> str:
        """How to resume if the run stops now."""
        whole = [
            path for path in checkpoints_in(Path(self.args.output_dir)) if problem_of(path) is None
        ]
        stopped = f"stopped at step {self.state.global_step}"
        if not whole:
            return f"{stopped}, before the first checkpoint: the same command starts anew"
        return f"{stopped}: the same command goes on from {whole[0]}"

    def _get_output_dir(self, trial: Any = None) -> str:
        return super()._get_output_dir(trial) if self.hidden is None else str(self.hidden)

    def _save_checkpoint(self, model: Any, trial: Any = None) -> None:
        folder = Path(self._get_output_dir(trial))
        (hidden,) = broadcast_object_list([str(part_of(folder / "checkpoint"))])
        self.hidden = Path(hidden)
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # each process has written its part
            if self.args.should_save:
                self.put_checkpoint(folder)
            else:
                self.name_best(folder)
            self.accelerator.wait_for_everyone()
        finally:
            shutil.rmtree(self.hidden, ignore_errors=True)
            self.hidden = None

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        try:
            super()._save_optimizer_and_scheduler(output_dir)
        except (OSError, RuntimeError) as error:  # of torch, without a name
            raise OSError(f"cannot write {output_dir} ({error}): is the disk full?") from error

    def put_checkpoint(self, folder: Path) -> None:
        """Rename the hidden checkpoint once it is complete, and remove old ones.

        Raises:
            OSError: if it cannot be read back.
        """
        (checkpoint,) = checkpoints_in(Path(str(self.hidden)))
        self.name_best(folder)
        self.state.save_to_json(str(checkpoint / STATE_FILE))
        write_text(checkpoint / SETTINGS_FILE, settings_text(self.resume_settings()))
        problem = problem_of(checkpoint, resumable=not self.args.save_only_model)
        if problem is not None:
            raise OSError(f"{folder / checkpoint.name} was not written: {problem}")
        put_folder(checkpoint, folder / checkpoint.name)
        self.remove_old(folder)

    def name_best(self, folder: Path) -> None:
        """The best checkpoint is called by its own name, not by where it was written."""
        best = self.state.best_model_checkpoint
        if best is not None and Path(best).parent == self.hidden:
            self.state.best_model_checkpoint = str(folder / Path(best).name)

    def remove_old(self, folder: Path) -> None:
        """Keep the newest `save_total_limit` checkpoints and the best one."""
        limit = self.args.save_total_limit
        if not limit or limit < 1:
            return
        found = checkpoints_in(folder)
        kept = {found[0].name, Path(self.state.best_model_checkpoint or found[0]).name}
        for checkpoint in found:
            if checkpoint.name not in kept and len(kept) >= limit:
                remove_folder(checkpoint)
            else:
                kept.add(checkpoint.name)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write the judge's own checkpoint format instead of a state dict of everything."""
        del state_dict
        if self.args.should_save:
            save_judge(self.judge, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Fill adapter and head from a checkpoint of this trainer."""
        del model
        load_trained_weights(self.judge, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        load_trained_weights(self.judge, Path(str(self.state.best_model_checkpoint)))


def steps_in(folder: Path) -> int:
    """Steps after which a checkpoint, or the judge of a run, was written."""
    return int(TrainerState.load_from_json(str(folder / STATE_FILE)).global_step)
