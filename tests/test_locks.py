"""What lets one thread in at a time does not stop a process that is forked meanwhile."""

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from gtsvj_reward.integrations import verl_omni
from gtsvj_reward.integrations.ddpo import DDPOReward
from gtsvj_reward.reward.clip_scorer import ClipScorer
from gtsvj_reward.reward.scorer_config import ScorerConfig
from gtsvj_reward.serving import ScoreClient
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


def clip_scorer(gate, monkeypatch):
    scorer = ClipScorer(reward_behind(gate), space=tiny_space())
    return lambda: scorer.score_latents(clips())


def ddpo_reward(gate, monkeypatch):
    reward = DDPOReward(reward_behind(gate), images_are="latents")
    return lambda: reward(clips(2), ["a dog", "a cat"], [])


def loading_for_verl_omni(gate, monkeypatch):
    settings = {"server_url": "http://127.0.0.1:1", "latents_of": "gtsvj-toy-pipeline"}
    config = ScorerConfig.from_dict(settings)
    made = config.load(ScoreClient)  # what loading waits for in a forked process is not ours

    def slow(*arguments):
        gate()
        return made

    monkeypatch.setattr(verl_omni, "SCORERS", {})
    monkeypatch.setattr(ScorerConfig, "load", slow)
    return lambda: verl_omni.scorer_for(config)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="only Unix forks")
@pytest.mark.parametrize("make", [clip_scorer, ddpo_reward, loading_for_verl_omni])
def test_a_child_that_is_forked_while_a_thread_is_busy_does_not_wait(make, monkeypatch):
    gate = Gate()
    work = make(gate, monkeypatch)
    with ThreadPoolExecutor(1) as pool:
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
    assert ended == 0, "the child waits for a thread that it does not have"
