"""A live judge of a policy in two processes (gloo); they are started once for all checks."""

import json
from functools import partial

import pytest

from tests.ranks import on_unix, run_apart
from tests.reward.live_processes import CHECKS, PROCESSES, save_judges, work

pytestmark = on_unix

LIMIT = 900
"""Seconds for all checks. Alone they need ten, on a machine with much other work over a hundred;
processes that wait for one another end long before it, see `ANSWER`."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Check -> what each process says of it."""
    folder = tmp_path_factory.mktemp("processes")
    save_judges(folder)
    works = [partial(work, rank, folder) for rank in range(PROCESSES)]
    status = run_apart(works, patience=LIMIT)
    said = [outcomes_of(folder, rank, code) for rank, code in enumerate(status)]
    return {name: [each[name] for each in said] for name in CHECKS}


def outcomes_of(folder, rank, code):
    """What a process says of each check; how it ended, of those that it did not come to."""
    written, log = folder / f"{rank}.json", folder / f"{rank}.log"
    end = f"ended before, with {code}\n{log.read_text() if log.exists() else 'without a log'}"
    return dict.fromkeys(CHECKS, end) | (
        json.loads(written.read_text()) if written.exists() else {}
    )


@pytest.mark.parametrize("check", CHECKS)
def test_two_processes(outcomes, check):
    for rank, said in enumerate(outcomes[check]):
        assert said == "passed", f"process {rank}: {said}"
