"""Several judges in one server, on one base, and a judge that is replaced while it is served."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from gtsvj_reward.judge import VideoJudge, load_judge, save_judge
from gtsvj_reward.serving import RefusedError, ScoreClient
from gtsvj_reward.serving.judges import share_base
from gtsvj_reward.serving.limits import Limits
from gtsvj_reward.serving.settings import ServeSettings, build_app
from tests.serving.command import saved_judge
from tests.serving.server import (
    HEADERS,
    assert_same_scores,
    body_of,
    client_of,
    post,
    reward_of,
    serving,
    varied,
)
from tests.tiny import tiny_aspect_judge, tiny_judge, tiny_space, tiny_transformer

AUTHORISED = {**HEADERS, "authorization": "Bearer t"}


def refit(folder, factor=2.0):
    """Write a judge in the place of the saved one whose head weighs all more."""
    judge = load_judge(folder)
    for parameter in judge.head.parameters():
        parameter.data.mul_(factor)
    save_judge(judge, folder)


def app_of(folder, *, token="t", **changes):
    return build_app(
        ServeSettings(checkpoint=str(folder), token=token, limits=Limits(max_wait_ms=0), **changes)
    )


def reload(port, body=b"", name="default", headers=AUTHORISED):
    return post(port, body, headers, f"/v1/judges/{name}/reload")


def loaded_score(folder, latents):
    return reward_of(load_judge(folder))(latents)


def test_each_judge_answers_under_its_name(reward, offline):
    aspects = reward_of(tiny_aspect_judge())
    latents = varied(4)
    with serving(reward, judges={"aspects-2": aspects}) as (_, port):
        with client_of(port) as client:
            assert_same_scores(client(latents), offline(latents))
            found = client.health()
        with client_of(port, judge="aspects-2") as client:
            details = client.details(latents)
        with (
            client_of(port, judge="nobody") as client,
            pytest.raises(RefusedError, match=r"unknown judge 'nobody'.*default, aspects-2"),
        ):
            client(latents)
    assert_same_scores(details.rewards, aspects(latents))
    assert set(details.aspects) == {"clear", "focus", "movement smoothness"}
    assert list(found["judges"]) == ["default", "aspects-2"]
    assert found["judges"]["aspects-2"]["stage"] == "aspects"


def test_requests_for_several_judges_share_no_batch(reward, offline):
    aspects = reward_of(tiny_aspect_judge())
    latents = varied(8)
    with (
        serving(reward, judges={"second": aspects}, max_wait_ms=100) as (_, port),
        client_of(port, clips_per_request=1) as first,
        client_of(port, clips_per_request=1, judge="second") as second,
        ThreadPoolExecutor(16) as pool,
    ):
        asked = [(client, clip) for clip in latents.split(1) for client in (first, second)]
        both = list(pool.map(lambda one: one[0](one[1]), asked))
    assert_same_scores(torch.cat(both[::2]), offline(latents))
    assert_same_scores(torch.cat(both[1::2]), aspects(latents))


def test_judges_of_one_base_hold_it_once():
    """Of another depth too; what differs in one element is not shared."""
    first, second = (VideoJudge.from_transformer(tiny_transformer(), tiny_judge().config)
                     for _ in range(2))  # fmt: skip
    third = tiny_judge(depth=2, transformer=tiny_transformer())
    changed = dict(second.backbone.base_tensors())["transformer_blocks.0.attn1.to_q.weight"]
    changed.data[0, 0] += 1
    before = [judge_scores(judge) for judge in (second, third)]
    base = sum(t.numel() * t.element_size() for _, t in first.backbone.base_tensors())
    assert share_base(second, [first]) == base - changed.numel() * 4
    assert share_base(third, [first, second]) == sum(
        t.numel() * t.element_size() for _, t in third.backbone.base_tensors()
    )
    held = {t.data_ptr() for _, t in first.backbone.base_tensors()}
    assert {t.data_ptr() for _, t in third.backbone.base_tensors()} <= held
    for scores, judge in zip(before, (second, third), strict=True):
        torch.testing.assert_close(judge_scores(judge), scores)


def judge_scores(judge):
    with torch.no_grad():
        return judge(varied(2)).scores


def test_judges_of_settings_share_their_base(tmp_path):
    folder = saved_judge(tmp_path)
    service = app_of(folder, judges={"twin": str(folder)}).state.service
    default, twin = service.judges.rewards()
    ours, theirs = (dict(one.judge.backbone.base_tensors()) for one in (default, twin))
    assert all(tensor.data_ptr() == theirs[name].data_ptr() for name, tensor in ours.items())
    with pytest.raises(ValueError, match="letters, digits"):
        app_of(folder, judges={"a/b": str(folder)})


def test_a_refitted_judge_takes_over_without_losing_a_request(tmp_path):
    """Each answer is that of the old judge or of the new one; none fails, and the last is new."""
    folder = saved_judge(tmp_path)
    latents = varied(4)
    old = loaded_score(folder, latents)
    app = app_of(folder)
    stop = threading.Event()
    with serving(app=app) as (_, port), ThreadPoolExecutor(4) as pool:

        def ask():
            found = []
            with client_of(port, token="t", retry_for=0) as client:
                while not stop.is_set():
                    found.append(client(latents))
            return found

        asking = [pool.submit(ask) for _ in range(4)]
        refit(folder)
        new = loaded_score(folder, latents)
        try:
            status, answer = reload(port, body_of(latents))
        finally:
            stop.set()
        with client_of(port, token="t") as client:
            last = client(latents)
            assert client.health()["loads"] == 2
        found = [scores for one in asking for scores in one.result()]
    assert status == 200
    assert_same_scores(torch.tensor(answer["before"]), old)
    assert_same_scores(torch.tensor(answer["after"]), new)
    assert_same_scores(last, new)
    assert (old - new).abs().max() > 0.1, "the judges are alike: the test proves nothing"
    assert len(found) >= 4
    for scores in found:
        expected = old if (scores - old).abs().max() < (scores - new).abs().max() else new
        assert_same_scores(scores, expected)
    # The new one has the old one's base.
    assert app.state.service.judges.default.loads == 2


def test_a_judge_reloaded_shares_the_base_of_the_old_one(tmp_path):
    folder = saved_judge(tmp_path)
    app = app_of(folder)
    with serving(app=app) as (_, port):
        before = dict(app.state.service.reward.judge.backbone.base_tensors())
        refit(folder)
        assert reload(port)[0] == 200  # without a body the canary is noise
        after = dict(app.state.service.reward.judge.backbone.base_tensors())
    assert all(tensor.data_ptr() == after[name].data_ptr() for name, tensor in before.items())


def broken(folder):
    """Half of a file, as of an upload that was cut short."""
    file = folder / "head.safetensors"
    file.write_bytes(file.read_bytes()[:-40])


def not_finite(folder):
    refit(folder, float("inf"))


def foreign(folder):
    judge = tiny_judge(
        base_model=str(folder.parent / "base"), latent_space=tiny_space(scaling_factor=3.0)
    )
    save_judge(judge, folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (broken, "the checkpoint cannot be loaded, the old judge stays"),
        (not_finite, "did not score the canary, the old one stays"),
        (foreign, "the old one stays, its clients' requests would fail"),
    ],
)
def test_what_cannot_take_over_does_not(tmp_path, change, reason):
    folder = saved_judge(tmp_path)
    old = loaded_score(folder, varied(4))
    with serving(app=app_of(folder)) as (app, port):
        change(folder)
        status, answer = reload(port)
        with client_of(port, token="t") as client:
            assert_same_scores(client(varied(4)), old)
        assert app.state.service.judges.default.loads == 1
    assert status == 409
    assert reason in answer["detail"]


def test_who_may_reload_and_what(tmp_path, reward):
    folder = saved_judge(tmp_path)
    with serving(app=app_of(folder)) as (_, port):
        assert reload(port, headers=HEADERS)[0] == 401
        assert reload(port, name="other")[0] == 422
        assert reload(port, b"no safetensors")[0] == 400
    with serving(app=app_of(folder, token=None)) as (_, port):
        status, answer = reload(port, headers=HEADERS)
        assert (status, "start the server with one" in answer["detail"]) == (403, True)
    with serving(app=app_of(folder, reloads=False)) as (_, port):
        assert reload(port)[0] == 409


def test_a_judge_in_the_path_of_a_client():
    client = ScoreClient("http://127.0.0.1:1", judge="a/b", retry_for=0)
    assert client.route == "/v1/judges/a%2Fb/score"
