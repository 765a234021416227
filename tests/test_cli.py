import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import gtsvj_reward
from gtsvj_reward.cli import COMMANDS, main, with_config
from gtsvj_reward.flags import snake_case
from gtsvj_reward.judge import save_judge
from gtsvj_reward.latents import LatentClip, LatentFolder, save_clip, write_video
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.reward.text_store import TextStore
from gtsvj_reward.toy.pipeline import load_pipeline
from tests.pipelines import cogvideox, frozen
from tests.tiny import tiny_judge, tiny_transformer
from tests.training.clips import write_clips


def moving_square(folder, count=3, frames=17):
    """Small clips of a square that moves, as GIFs would not keep: folders of pictures."""
    for index in range(count):
        clip = torch.full((frames, 32, 48, 3), 40, dtype=torch.uint8)
        for time_step in range(frames):
            left = (2 * time_step + 5 * index) % 40
            clip[time_step, 10:18, left : left + 8] = 220
        write_video(folder / f"clip{index}", clip, 8.0)


@pytest.fixture
def vae_folder(tmp_path, tiny_vae):
    tiny_vae.save_pretrained(tmp_path / "pipe" / "vae")
    return tmp_path / "pipe"


def encode_flags(vae_folder):
    return f"--vae {vae_folder} --fps 8 --frames_fps 8 --height 32 --width 48 --device cpu".split()


def test_prompts_from_videos_to_ranks(tmp_path, capsys):
    """What the text encoder said is kept beside the latents, scored under, and grouped by."""
    pipe = frozen(cogvideox)
    pipe.save_pretrained(tmp_path / "pipe")
    moving_square(tmp_path / "videos", count=4)
    table = tmp_path / "prompts.csv"
    rows = [(f"clip{index}", ("a dog", "a red square")[index % 2]) for index in range(4)]
    table.write_text("video,prompt\n" + "".join(f"{v},{p}\n" for v, p in rows))
    words = ["encode", str(tmp_path / "videos"), str(tmp_path / "latents"),
             *encode_flags(tmp_path / "pipe"), "--prompts", str(table)]  # fmt: skip
    assert main(words) == 0, capsys.readouterr().err
    assert "prompts encoded 2" in capsys.readouterr().out
    assert main(words) == 0
    assert "prompts encoded 0; 4 videos in" in capsys.readouterr().out
    table.write_text(table.read_text() + "gone,a dog\n")
    assert main(words) == 0
    assert f"left out: 1 of 5 videos in {table} have no" in capsys.readouterr().err
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("video,prompt\nclip0,a dog runs\nclip0,red\nclip1,a dog\n")
    assert main([*words, "--wrong_prompts", str(wrong)]) == 0
    assert "prompts encoded 2;" in capsys.readouterr().out
    kept = TextStore(tmp_path / "latents" / "prompts").wrong
    assert kept == {"clip0": ["a dog runs", "red"], "clip1": ["a dog"]}
    judge = tiny_judge(
        transformer=pipe.transformer,
        base_model=str(tmp_path / "pipe"),
        latent_space=LatentSpace.from_pipeline(pipe),
        text_input="prompt",
        geometry=None,
    )
    save_judge(judge, tmp_path / "judge")
    out = tmp_path / "ranks.csv"
    words = ["rank", str(tmp_path / "judge"), str(tmp_path / "latents"), "--out", str(out),
             "--group_by", "prompt"]  # fmt: skip
    assert main(words) == 0, capsys.readouterr().err
    with out.open() as opened:
        ranked = [(row["video"], row["group"]) for row in csv.DictReader(opened)]
    assert sorted(ranked) == rows
    table.write_text("video,prompt\nclip0,a dog\n")
    assert main(["encode", str(tmp_path / "videos"), str(tmp_path / "latents"),
                 *encode_flags(tmp_path / "pipe"), "--prompts", str(table)]) == 1  # fmt: skip
    assert "3 of 4 clips have no prompt, the first is clip1" in capsys.readouterr().err
    table.write_text("video,prompt\nclip0,a dog\nclip0,a cat\n")
    assert main(["encode", str(tmp_path / "videos"), str(tmp_path / "latents"),
                 *encode_flags(tmp_path / "pipe"), "--prompts", str(table)]) == 1  # fmt: skip
    assert "repeat a video" in capsys.readouterr().err


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed and text in printed for name, text in COMMANDS.items())
    assert main([]) == 2


def test_help_of_training_shows_its_own_settings_and_all_if_asked(capsys):
    shown = {}
    for flag in ("--help", "--help_all"):
        with pytest.raises(SystemExit) as stopped:
            main(["train-aspects", "--readout", "mlp", flag])
        assert stopped.value.code == 0
        shown[flag] = capsys.readouterr().out
    assert all("--held_out_fraction" in text for text in shown.values())
    assert "--adam_beta1" not in shown["--help"]
    assert "--adam_beta1" in shown["--help_all"]


def test_what_imports_load(tmp_path):
    code = (
        "import sys, gtsvj_reward, gtsvj_reward.cli as cli\n"
        "cli.main(['--help'])\n"
        "try: cli.main(['--version'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'gtsvj_reward.toy', 'gtsvj_reward.demo'}\n"
        "print(heavy & set(sys.modules))\n"
        "print(gtsvj_reward.GTSVJReward.__name__, 'GTSVJReward' in dir(gtsvj_reward))\n"
        "import gtsvj_reward.serving, gtsvj_reward.serving.protocol\n"
        "web = {'fastapi', 'starlette', 'uvicorn', 'httpx', 'ray', 'gtsvj_reward.toy'}\n"
        "print(web & set(sys.modules))\n"
        "import gtsvj_reward.integrations; print(gtsvj_reward.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True,
                          text=True, check=True)  # fmt: skip
    *_, version, loaded, names, web, place = done.stdout.splitlines()
    assert version == f"gtsvj {gtsvj_reward.__version__}"
    assert loaded == "set()"
    assert names == "GTSVJReward True"
    assert web == "set()", "a client needs no web server, and a judge no toy world"
    assert place == gtsvj_reward.__file__, "processes that tests start import another package"


def test_unknown_names_of_the_package_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'GTSVJRewards'"):
        gtsvj_reward.GTSVJRewards  # noqa: B018


def test_unknown_commands_are_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["tarin"])
    assert stopped.value.code == 2
    assert "tarin" in capsys.readouterr().err


def test_flags_are_read_in_their_old_spelling(tmp_path, capsys):
    given = ["--vae-dtype=bfloat16", "--batch-size", "-1", "a-b", "--no-check", "x=--y-z"]
    read = ["--vae_dtype=bfloat16", "--batch_size", "-1", "a-b", "--no_check", "x=--y-z"]
    assert [snake_case(argument) for argument in given] == read
    (tmp_path / "scores.csv").write_text("video,reward\na/1.mp4,1\na/2.mp4,2\n")
    scores = ["rank", "--scores", str(tmp_path / "scores.csv"), "--out", str(tmp_path / "r.csv")]
    assert main([*scores, "--group-by", "folder", "--min-margin", "0.5"]) == 0
    assert (tmp_path / "r.csv").read_text().count("\n") == 3


def test_errors_are_one_line_and_exit_with_1(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "nothing")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("gtsvj inspect: no judge '")
    assert error.count("\n") == 1


def test_inspect_takes_the_names_that_score_and_serve_take(capsys):
    assert main(["inspect", "gtsvj-toy", "--pipeline", "gtsvj-toy-pipeline"]) == 0
    printed = capsys.readouterr().out
    assert "fits gtsvj-toy-pipeline: same latents" in printed
    assert main(["inspect", "gtsvj-toi"]) == 1
    assert "a bundled name (gtsvj-demo-base" in capsys.readouterr().err


def test_encode_score_plot_end_to_end(tmp_path, vae_folder, tiny_vae, capsys):
    moving_square(tmp_path / "videos")
    assert main(["encode", str(tmp_path / "videos"), str(tmp_path / "latents"),
                 *encode_flags(vae_folder)]) == 0  # fmt: skip
    assert "encoded 3, already done 0, too short 0, unreadable 0" in capsys.readouterr().out
    folder = LatentFolder(tmp_path / "latents")
    assert len(folder) == 3
    assert folder.infos[0].shape == (5, 4, 4, 6)

    tiny_transformer().save_pretrained(tmp_path / "base")
    space = LatentSpace.from_vae(tiny_vae)
    judge = tiny_judge(base_model=str(tmp_path / "base"), latent_space=space)
    save_judge(judge, tmp_path / "judge")
    words = ["score", str(tmp_path / "judge"), str(tmp_path / "latents"), "--out",
             str(tmp_path / "scores.csv"), "--report", str(tmp_path / "page"), "--videos",
             str(tmp_path / "videos")]  # fmt: skip
    assert main(words) == 0, capsys.readouterr().err
    with (tmp_path / "scores.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    assert [row["video"] for row in rows] == ["clip0", "clip1", "clip2"]
    assert "prompt" not in rows[0]
    for row in rows:
        steps = json.loads(row["trajectory"])
        assert sum(steps) / len(steps) == pytest.approx(float(row["raw"]), abs=1e-5)
        assert float(row["reward"]) == pytest.approx((float(row["raw"]) - 0.25) / 0.5, abs=1e-5)
    assert [path.name for path in (tmp_path / "page").iterdir()] == ["index.html"]


def test_unreadable_videos_set_the_exit_status(tmp_path, vae_folder, capsys):
    moving_square(tmp_path / "videos", count=1)
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video at all")
    (tmp_path / "videos" / "x.flv").write_bytes(b"a video of another kind")
    words = ["encode", str(tmp_path / "videos"), str(tmp_path / "latents"),
             *encode_flags(vae_folder)]  # fmt: skip
    assert main(words) == 1
    printed = capsys.readouterr()
    assert "unreadable 1" in printed.out
    assert "broken.mp4" in printed.err
    assert "skipped: 1 files that end in .flv, the first is" in printed.err
    assert main([*words, "--skip_unreadable"]) == 0
    assert "already done 1, too short 0, unreadable 1" in capsys.readouterr().out
    (tmp_path / "videos" / "broken.mp4").unlink()
    words[2] = str(tmp_path / "longer")
    assert main([*words, "--num_frames", "21"]) == 0, "too short is not unreadable"
    printed = capsys.readouterr()
    assert "too short 1, unreadable 0" in printed.out
    assert "needed 21: ask for at most 17 frames" in printed.err


@pytest.mark.slow
def test_encode_is_resumed_after_kill_and_sharded(tmp_path, vae_folder):
    """SIGKILL in the middle; two processes then finish, and all files equal a single run's.

    One of the two finds a video that it cannot read, at once; the other does its work all the same.
    """
    moving_square(tmp_path / "videos", count=8)
    words = [str(tmp_path / "videos"), str(tmp_path / "latents"), *encode_flags(vae_folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", "gtsvj_reward.cli", "encode", *words]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("latents/*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("latents/*.safetensors")}
    assert done
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes",
              "2", "--num_machines", "1", "--main_process_port", "0", "--mixed_precision", "no",
              "--dynamo_backend", "no", "-m", "gtsvj_reward.cli", "encode", *words]  # fmt: skip
    (tmp_path / "videos" / "a-broken.mp4").write_bytes(b"no video at all")
    both = subprocess.run(launch, check=False, env=environment, timeout=300, capture_output=True,
                          text=True)  # fmt: skip
    assert both.returncode != 0
    assert f"encoded {8 - len(done)}, already done {len(done)}, too short 0, unreadable 1" in (
        both.stdout
    )
    assert both.stderr.count("unreadable: ") == 1
    assert len(list(tmp_path.glob("latents/*.safetensors"))) == 8
    for name, changed in done.items():
        assert (tmp_path / "latents" / name).stat().st_mtime_ns == changed, "encoded twice"
    words[1] = str(tmp_path / "single")
    assert main(["encode", *words, "--skip_unreadable"]) == 0
    for path in (tmp_path / "single").glob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "latents" / path.name).read_bytes()


def test_score_needs_videos_to_plot(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["score", "judge", "latents", "--out", "x.csv", "--report", str(tmp_path)])
    assert "--report needs --videos" in capsys.readouterr().err


def test_inspect_says_what_it_is_and_what_fits(tmp_path, vae_folder, tiny_vae, capsys):
    transformer = tiny_transformer()
    transformer.save_pretrained(vae_folder / "transformer")
    space = LatentSpace.from_vae(tiny_vae)
    judge = tiny_judge(base_model=str(vae_folder), latent_space=space, depth=3)
    save_judge(judge, tmp_path / "judge")
    words = ["inspect", str(tmp_path / "judge"), "--pipeline", str(vae_folder)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    for part in ("discriminator", "first 3 blocks", space.id, "3-7 latent frames"):
        assert part in printed
    assert "its transformer has the judge's base weights" in printed
    tiny_transformer(seed=1).save_pretrained(vae_folder / "transformer")
    assert main(words) == 0
    assert "has other weights than the judge's" in capsys.readouterr().out
    other = tiny_vae.__class__.from_config({**tiny_vae.config, "scaling_factor": 0.7})
    other.save_pretrained(vae_folder / "vae")
    assert main(words) == 1
    assert "the judge scores" in capsys.readouterr().out


def test_yaml_holds_defaults_and_flags_win(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("real: some folder\nmax_steps: 5\nheld_out_real: null\nuse_cpu: true\n")
    words = with_config(["--config", str(file), "--max_steps", "7"])
    assert words == ["--real", "some folder", "--max_steps", "5", "--use_cpu", "True",
                     "--max_steps", "7"]  # fmt: skip
    file.write_text("- a list\n")
    with pytest.raises(ValueError, match="must hold `name: value` lines"):
        with_config(["--config", str(file)])


def test_train_and_calibrate_from_yaml(tmp_path, capsys):
    tiny_transformer().save_pretrained(tmp_path / "base")
    write_clips(tmp_path / "real", 10)
    base = f"base_model: {tmp_path / 'base'}\nhead_width: 16\nreal: {tmp_path / 'real'}\n"
    (tmp_path / "c.yaml").write_text(base + "steps: 3\nbatch_size: 4\nwindow: 1\n")
    assert main(["calibrate-perturbations", "--config", str(tmp_path / "c.yaml"), "--out",
                 str(tmp_path / "cal")]) == 0  # fmt: skip
    assert (tmp_path / "cal" / "calibration.png").is_file()
    assert "frame_drop" in capsys.readouterr().out
    (tmp_path / "t.yaml").write_text(
        base + f"readout: mlp\noutput_dir: {tmp_path / 'judge'}\nmax_steps: 2\nlogging_steps: 1\n"
        f"per_device_train_batch_size: 4\nuse_cpu: true\nsave_strategy: 'no'\n"
        f"perturbations: {tmp_path / 'cal' / 'perturbations.json'}\n"
    )
    assert main(["train-discriminator", "--config", str(tmp_path / "t.yaml"), "--beta", "0.3"]) == 0
    assert (tmp_path / "judge" / "training.png").is_file()
    card = (tmp_path / "judge" / "README.md").read_text()
    assert "beta 0.3" in card


def test_misspelt_settings_are_refused(tmp_path, capsys):
    (tmp_path / "t.yaml").write_text("base_model: x\nreal: y\noutput_dir: z\nbetta: 0.3\n")
    assert main(["train-discriminator", "--config", str(tmp_path / "t.yaml")]) == 1
    assert "betta" in capsys.readouterr().err


def write_toy_clips(folder, count=2):
    """Latents of the toy world's space, as short as they may be."""
    space = LatentSpace.from_pipeline(load_pipeline())
    for index in range(count):
        generator = torch.Generator().manual_seed(index)
        save_clip(
            folder / f"{index}.safetensors",
            LatentClip(
                latents=torch.randn(3, space.channels, 8, 8, generator=generator),
                space=space,
                fps=8.0,
                num_frames=9,
                source=f"{index}.mp4",
            ),
        )


def test_negatives_of_real_clips_and_of_prompts(tmp_path, capsys):
    write_toy_clips(tmp_path / "real")
    (tmp_path / "captions.csv").write_text("video,prompt\n0.mp4,one red square\n7.mp4,two discs\n")
    (tmp_path / "prompts.txt").write_text("one red square\n")
    words = ["negatives", "gtsvj-toy-pipeline", "--out", str(tmp_path / "out"), "--real",
             str(tmp_path / "real"), "--captions", str(tmp_path / "captions.csv"), "--strengths",
             "0.4", "--device", "cpu", "--dtype", "float32"]  # fmt: skip
    assert main(words) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "made 2, already done 0" in printed
    assert "1 real clips have no caption" in printed
    assert "1 videos of --captions are not below --real, the first is 7.mp4" in printed
    words += ["--prompts", str(tmp_path / "prompts.txt"), "--sample_steps", "1", "--num_frames",
              "9", "--height", "64", "--width", "64", "--fps", "8", "--keep_prompts"]  # fmt: skip
    assert main(words) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "made 1, already done 2" in printed
    assert "prompts encoded 1" in printed
    folder = LatentFolder(tmp_path / "out")
    asked = [info for info in folder.infos if info.settings["prompt"]]
    assert TextStore.beside(folder.path).text_of(asked).embeds.shape[0] == 2
    assert {info.shape for info in folder.infos} == {(3, folder.space.channels, 8, 8)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "--real LATENTS, --prompts FILE or both"),
        ("--prompts p.txt --fps 8", "--prompts needs all of --num_frames, --height"),
        ("--real r --fps 8 --height 64", "--height, --fps are for --prompts"),
        ("--prompts p.txt --captions c.csv", "--captions needs --real"),
    ],
)
def test_flags_of_negatives_that_do_not_fit(words, message, capsys):
    with pytest.raises(SystemExit):
        main(["negatives", "gtsvj-toy-pipeline", "--out", "out", *words.split()])
    assert message in capsys.readouterr().err
