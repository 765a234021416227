"""The processes of one run."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar, cast

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from gtsvj_reward.judge import VideoJudge
from gtsvj_reward.locks import folder_lock
from gtsvj_reward.training.arguments import JudgeArguments, SplitSettings

Args = TypeVar("Args", bound=SplitSettings)
Rest = ParamSpec("Rest")
Found = TypeVar("Found")


def from_main(read: Callable[[], Found]) -> Found:
    """What the main process reads or writes, for all processes: files may change between two reads.

    What it raises, all processes raise: none waits for it in vain.

    Args:
        read: called in the main process; what it returns can be pickled.
    """
    if not PartialState().is_main_process:
        found, error = broadcast_object_list([None, None])
        if error is not None:
            raise error
        return cast("Found", found)
    try:
        own = read()
    except BaseException as error:
        broadcast_object_list([None, error])
        raise
    broadcast_object_list([own, None])
    return own


@contextmanager
def failing_together() -> Iterator[None]:
    """What one process raises in the block, all processes raise at its end.

    The others would wait for that one in their next exchange. In the block nothing is exchanged.
    """
    try:
        yield
    except BaseException as error:
        gather_object([error])
        raise
    errors = [error for error in gather_object([None]) if error is not None]
    if errors:
        raise errors[0]


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
