"""A live judge of a policy in two processes (gloo); they are started once for all checks."""

import json
from functools import partial

import pytest

from tests.ranks import on_unix, run_apart
from tests.reward.live_processes import CHECKS, PROCESSES, save_judges, work

pytestmark = on_unix

LIMIT = 300
"""Seconds after which processes that wait for one another are ended; alone they need ten."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Check -> what each process says of it."""
    folder = tmp_path_factory.mktemp("processes")
    save_judges(folder)
    works = [partial(work, rank, folder) for rank in range(PROCESSES)]
    status = run_apart(works, patience=LIMIT)
    written = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(PROCESSES)]
    ended = [
        f"ended before, with {code}\n{(folder / f'{rank}.log').read_text()}"
        for rank, code in enumerate(status)
    ]
    return {
        name: [each.get(name, end) for each, end in zip(written, ended, strict=True)]
        for name in CHECKS
    }


@pytest.mark.parametrize("check", CHECKS)
def test_two_processes(outcomes, check):
    for rank, said in enumerate(outcomes[check]):
        assert said == "passed", f"process {rank}: {said}"
