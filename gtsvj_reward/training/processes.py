"""The processes of one run."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from gtsvj_reward.judge import VideoJudge
from gtsvj_reward.locks import FolderInUseError, folder_lock
from gtsvj_reward.training.arguments import JudgeArguments, SplitSettings

Args = TypeVar("Args", bound=SplitSettings)
Rest = ParamSpec("Rest")


@contextmanager
def only_run(folder: str | Path) -> Iterator[None]:
    """Keep other runs out of a folder; the first process holds the lock for all of this run.

    Raises:
        FolderInUseError: in all processes, if another run writes to the folder.
    """
    state = PartialState()
    with ExitStack() as stack:
        refusal = None
        if state.is_main_process:
            try:
                stack.enter_context(folder_lock(folder))
            except FolderInUseError as error:
                refusal = str(error)
        (refusal,) = broadcast_object_list([refusal])
        if refusal is not None:
            raise FolderInUseError(refusal)
        yield


def alone(
    fit: Callable[Concatenate[JudgeArguments, Args, Rest], VideoJudge],
) -> Callable[Concatenate[JudgeArguments, Args, Rest], VideoJudge]:
    """The same fit, which no other run joins in its `output_dir`; see `only_run`."""

    @wraps(fit)
    def fit_alone(
        judge_arguments: JudgeArguments, args: Args, *rest: Rest.args, **named: Rest.kwargs
    ) -> VideoJudge:
        with only_run(args.output_dir):
            return fit(judge_arguments, args, *rest, **named)

    return fit_alone  # type: ignore[return-value]  # both can be given by name as well
