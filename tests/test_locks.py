"""What lets one thread in at a time does not stop a process that is forked meanwhile."""

import json
import multiprocessing
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event, get_ident

import pytest

from gtsvj_reward import locks
from gtsvj_reward.integrations import verl_omni
from gtsvj_reward.integrations.ddpo import DDPOReward
from gtsvj_reward.locks import LOCK_FILE, FolderInUseError, folder_lock
from gtsvj_reward.reward.clip_scorer import ClipScorer
from gtsvj_reward.reward.scorer_config import ScorerConfig
from gtsvj_reward.serving import ScoreClient
from tests.holder import holder
from tests.ranks import on_unix, run_apart
from tests.tiny import clips, tiny_space


class Gate:
    """Holds up the process that made it until it is opened; children pass."""

    def __init__(self):
        self.process, self.reached, self.opened = os.getpid(), Event(), Event()

    def __call__(self):
        if os.getpid() == self.process:
            self.reached.set()
            assert self.opened.wait(120)


def reward_behind(gate):
    def reward(latents, *, space=None, fps=None, num_frames=None, text=None, normalize=True):
        gate()
        return latents.mean(dim=(1, 2, 3, 4))

    return reward


def clip_scorer(gate, monkeypatch, folder):
    scorer = ClipScorer(reward_behind(gate), space=tiny_space())
    return lambda: scorer.score_latents(clips())


def ddpo_reward(gate, monkeypatch, folder):
    reward = DDPOReward(reward_behind(gate), images_are="latents")
    return lambda: reward(clips(2), ["a dog", "a cat"], [])


def loading_for_verl_omni(gate, monkeypatch, folder):
    settings = {"server_url": "http://127.0.0.1:1", "latents_of": "gtsvj-toy-pipeline"}
    config = ScorerConfig.from_dict(settings)
    made = config.load(ScoreClient)  # what loading waits for in a forked process is not ours

    def slow(*arguments, takes_text):
        gate()
        return made

    monkeypatch.setattr(verl_omni, "SCORERS", {})
    monkeypatch.setattr(ScorerConfig, "load", slow)
    return lambda: verl_omni.scorer_for(config)


def locking_a_folder(gate, monkeypatch, folder):
    def slow():
        gate()
        return get_ident()

    monkeypatch.setattr(locks, "get_ident", slow)
    return lambda: take(folder)


def take(folder):
    with folder_lock(folder):
        pass


MAKES = [clip_scorer, ddpo_reward, loading_for_verl_omni, locking_a_folder]


@on_unix
def test_a_child_that_is_forked_while_a_thread_is_busy_does_not_wait(tmp_path):
    names = [make.__name__ for make in MAKES]
    status = run_apart([partial(fork_beside_a_busy_thread, make, tmp_path) for make in MAKES])
    assert dict(zip(names, status, strict=True)) == dict.fromkeys(names, 0)


def fork_beside_a_busy_thread(make, folder):
    """0 if a forked child does what a thread of its parent is busy with."""
    gate = Gate()
    folder = folder / make.__name__
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as pool:
        work = make(gate, patch, folder)
        busy = pool.submit(work)
        assert gate.reached.wait(60)
        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
        child.join(30)
        ended = child.exitcode
        child.kill()
        child.join()
        gate.opened.set()
        busy.result()
    return 1 if ended is None else ended


@on_unix
def test_a_second_run_on_one_folder_is_refused_with_the_holder_s_name(tmp_path):
    with holder(tmp_path) as other:
        who = f"in use by process {other.pid} on {socket.gethostname()}, running since 20"
        with pytest.raises(FolderInUseError, match=who):
            take(tmp_path)
        other.stdin.close()
        assert other.wait(60) == 0
        with folder_lock(tmp_path), folder_lock(tmp_path):
            assert (tmp_path / LOCK_FILE).exists()
            with (
                ThreadPoolExecutor(1) as pool,
                pytest.raises(FolderInUseError, match="another thread"),
            ):
                pool.submit(take, tmp_path).result()
    assert not list(tmp_path.iterdir())


@on_unix
def test_the_lock_of_a_run_that_was_killed_is_taken_over(tmp_path, caplog):
    with holder(tmp_path) as other:
        pass
    assert (tmp_path / LOCK_FILE).exists(), "it was not killed"
    with folder_lock(tmp_path):
        assert f"left by process {other.pid} on {socket.gethostname()}" in caplog.text
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_only_a_lock_made_is_removed_with_it(tmp_path):
    with pytest.raises(ValueError, match="nothing"), folder_lock(tmp_path / "a" / "run"):
        raise ValueError("nothing was written")
    assert not (tmp_path / "a" / "run").exists()
