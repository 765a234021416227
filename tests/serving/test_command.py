"""`gtsvj serve` as people start it."""

import pytest
import torch

from gtsvj_reward.cli import main
from gtsvj_reward.serving import installed, server
from tests.serving.command import saved_judge
from tests.serving.server import assert_same_scores, reward_of, varied
from tests.tiny import ASPECTS, tiny_aspect_judge, tiny_transformer


def test_aspects_are_chosen(tmp_path, monkeypatch):
    from gtsvj_reward.cli import serve as module
    from gtsvj_reward.judge import save_judge

    tiny_transformer().save_pretrained(tmp_path / "base")
    save_judge(tiny_aspect_judge(base_model=str(tmp_path / "base")), tmp_path / "judge")
    served = []
    monkeypatch.setattr(server, "serve", lambda app, **_: served.append(app))
    words = [str(tmp_path / "judge"), "--device", "cpu", "--aspects", "clear", "focus"]
    assert module.serve([*words, "--allow_untrained_geometry"]) == 0
    reward = served[0].state.service.reward
    expected = reward_of(tiny_aspect_judge(), aspects=["clear", "focus"])
    with torch.no_grad():
        assert_same_scores(reward(varied(3)), expected(varied(3)))
    assert reward.allow_untrained_geometry
    assert len(ASPECTS) == 3


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--replicas", "2"], "--replicas needs --engine ray"),
        (["--fps", "8"], "fps is for videos, which need --vae"),
    ],
)
def test_flags_without_use_are_refused(words, reason, capsys):
    with pytest.raises(SystemExit):
        main(["serve", "judge", *words])
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("engine", "missing", "reason"),
    [
        (
            "uvicorn",
            {"fastapi", "uvicorn"},
            "needs fastapi and uvicorn: pip install 'gtsvj-reward[serve]'",
        ),
        ("ray", {"ray"}, "needs ray: pip install 'gtsvj-reward[serve,ray]'"),
    ],
)
def test_what_is_not_installed_is_said_before_any_work(
    engine, missing, reason, monkeypatch, capsys
):
    """Before the judge is looked for, which is not there either."""
    found = installed.find_spec
    monkeypatch.setattr(installed, "find_spec", lambda n: None if n in missing else found("json"))
    assert main(["serve", "no-such-judge", "--engine", engine]) == 1
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("name", ["gtsvj-toy", "gtsvj-toy-lora"])
def test_bundled_names_are_those_of_other_commands(name, monkeypatch, capsys):
    """A judge by the name that `inspect` takes, and its VAE by that of a pipeline."""
    served = []
    monkeypatch.setattr(server, "serve", lambda app, **_: served.append(app.state.service))
    videos = ["--vae", "gtsvj-toy-pipeline", "--num_frames", "9"]
    further = ["--judges", f"twin={name}", "--pessimism", "0"]
    assert main(["serve", name, "--device", "cpu", *videos, *further]) == 0
    assert main(["inspect", name]) == 0
    first, twin = served[0].judges.rewards()
    assert first.config.latent_space.id in capsys.readouterr().out
    assert first.config == twin.config


def test_judges_without_a_name_are_refused(capsys):
    assert main(["serve", "judge", "--device", "cpu", "--judges", "path/to/other"]) == 1
    assert "--judges takes NAME=CHECKPOINT with different names" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--max_batch_size", "0"], "--max_batch_size must be positive"),
        (["--max_clips", "300"], "one request must fit into the queue"),
        (["--max_body_mib", "2000"], "one request must fit into the queue"),
        (["--max_wait_ms", "-1"], "--max_wait_ms must be >= 0"),
    ],
)
def test_limits_that_contradict_are_refused(words, reason, capsys):
    assert main(["serve", "judge", "--device", "cpu", *words]) == 1
    assert reason in capsys.readouterr().err


def test_a_taken_port_is_an_error_of_one_line(tmp_path, port, capsys):
    judge = str(saved_judge(tmp_path))
    assert main(["serve", judge, "--device", "cpu", "--port", str(port)]) == 1
    error = capsys.readouterr().err
    assert "in use" in error
    assert error.count("\n") == 1
