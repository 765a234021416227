"""The processes of one run."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar, cast

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from gtsvj_reward.judge import VideoJudge
from gtsvj_reward.locks import folder_lock
from gtsvj_reward.training.arguments import JudgeArguments, SplitSettings

Args = TypeVar("Args", bound=SplitSettings)
Rest = ParamSpec("Rest")
Found = TypeVar("Found")


def from_main(read: Callable[[], Found]) -> Found:
    """What the main process reads, in all processes: files may change between two reads.

    Args:
        read: called in the main process; what it returns can be pickled.

    Raises:
        OSError: in all processes, if the main process raised one.
        ValueError: likewise.
    """
    found: Found | None = None
    error: Exception | None = None
    if PartialState().is_main_process:
        try:
            found = read()
        except (OSError, ValueError) as raised:
            error = raised
    found, error = broadcast_object_list([found, error])
    if error is not None:
        raise error
    return cast("Found", found)


@contextmanager
def only_run(folder: str | Path) -> Iterator[None]:
    """Keep other runs out of a folder; the first process holds the lock for all of this run.

    Raises:
        FolderInUseError: in all processes, if another run writes to the folder.
    """
    with ExitStack() as stack:
        from_main(lambda: stack.enter_context(folder_lock(folder)))
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
