"""`gtsvj evaluate` from files to files."""

import csv

import pytest

from gtsvj_reward.annotations import write_comparisons
from gtsvj_reward.cli import main
from gtsvj_reward.cli.evaluate import columns_for, evaluate
from gtsvj_reward.evaluation import EvaluationResult, evaluate_comparisons, read_scores
from gtsvj_reward.judge import save_judge
from gtsvj_reward.reward import PromptEncoder
from gtsvj_reward.reward.text_store import write_texts
from tests.evaluation.made_up import FAST, made_up, made_up_scores
from tests.judge.test_moment_judge import moment_judge
from tests.judge.test_prompt_moments import READS
from tests.pipelines import cogvideox, frozen
from tests.tiny import tiny_judge, tiny_transformer
from tests.training.clips import write_clips


@pytest.fixture
def files(tmp_path):
    """A plain file of comparisons and a score table that names videos by shorter paths."""
    data = made_up(24, prompts=6)
    write_comparisons(tmp_path / "pairs.csv", data)
    columns = made_up_scores(data).columns
    with (tmp_path / "scores.csv").open("w", newline="") as opened:
        rows = csv.writer(opened)
        rows.writerow(["video", *columns])
        for video in data.videos():
            rows.writerow([video.removeprefix("videos/"), *(c[video] for c in columns.values())])
    return tmp_path


def words(files, *more):
    return [
        *("--benchmark", "pairs", "--data", str(files / "pairs.csv")),
        *("--out", str(files / "out"), "--resamples", "1"),
        *more,
    ]


def result_in(folder):
    return EvaluationResult.from_json((folder / "result.json").read_text())


def test_from_a_table_of_scores(files, capsys):
    scores = ["--scores", str(files / "scores.csv")]
    column = ["--column_for", "VQ=aspect:clear+aspect:focus", "--column", "raw"]
    assert evaluate(words(files, *scores, *column)) == 0
    printed = capsys.readouterr().out
    assert "n = 24 of 24 comparisons" in printed
    assert "chance / constant" in printed
    result = result_in(files / "out")
    assert [a.column for a in result.dimensions] == ["aspect:clear+aspect:focus", "raw", "raw"]
    assert (result.scorer, result.benchmark, result.data) == ("scores.csv", "pairs", "pairs.csv")
    data = made_up(24, prompts=6)
    direct = evaluate_comparisons(
        data, made_up_scores(data), column="raw",
        columns={"VQ": "aspect:clear+aspect:focus"}, settings=FAST,
    )  # fmt: skip
    assert result.dimensions == direct.dimensions
    assert result.models == direct.models
    assert result.aspects == direct.aspects
    written = sorted(path.name for path in (files / "out").iterdir())
    assert written == ["index.html", "result.json", "result.md"]
    page = (files / "out" / "index.html").read_text()
    for item in result.dimensions:
        rates = f"Observed share of wins where predicted: {item.dimension}"
        assert (rates in page) == (item.win_rates is not None)
        assert (f"Accuracy by tie threshold: {item.dimension}" in page) == (item.human_ties > 0)
    assert "Accuracy by tie threshold: overall" in page


def test_missing_videos_and_names(files, capsys):
    table = files / "scores.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[:-1]) + "\n")
    flags = ["--scores", str(table), "--name", "mine"]
    with pytest.raises(ValueError, match=r"1 of 18 videos of pairs\.csv have no score"):
        evaluate(words(files, *flags))
    assert not (files / "out").exists()
    assert evaluate(words(files, *flags, "--allow_missing_videos")) == 0
    printed = capsys.readouterr().out
    result = result_in(files / "out")
    assert result.scorer == "mine"
    left_out = result.comparisons - result.evaluated
    assert left_out > 0
    assert f"n = {result.evaluated} of 24" in printed
    assert f"incomplete: {left_out} comparisons left out, 1 videos without a score" in printed


def test_with_a_judge_then_with_its_table(tmp_path, capsys):
    tiny_transformer().save_pretrained(tmp_path / "base")
    save_judge(tiny_judge(base_model=str(tmp_path / "base")), tmp_path / "judge")
    write_clips(tmp_path / "latents", 6)  # sources 0.mp4 to 5.mp4
    (tmp_path / "pairs.csv").write_text(
        "video_a,video_b,label,prompt\n"
        "v/0.mp4,v/1.mp4,1,x\nv/2.mp4,v/3.mp4,-1,y\nv/4.mp4,v/1.mp4,0,z\nv/0.mp4,v/3.mp4,1,z\n"
        "v/0.mp4,v/9.mp4,1,x\n"
    )
    judge = ["--judge", str(tmp_path / "judge"), "--latents", str(tmp_path / "latents")]
    with pytest.raises(ValueError, match=r"1 of 6 videos have no latent file.*v/9\.mp4"):
        evaluate(words(tmp_path, *judge))
    allow = ["--allow_missing_videos"]
    assert evaluate(words(tmp_path, *judge, *allow, "--batch_size", "2")) == 0
    first = result_in(tmp_path / "out")
    assert (first.scorer, first.evaluated, first.missing_videos) == ("judge", 4, ("v/9.mp4",))
    scores = tmp_path / "out" / "scores.csv"
    assert sorted(read_scores(scores).videos) == [f"{i}.mp4" for i in range(5)], "5.mp4 is unused"
    again = ["--scores", str(scores), "--name", "judge"]
    assert evaluate(words(tmp_path, *again, *allow)) == 0
    assert result_in(tmp_path / "out") == first
    assert "reuse them with --scores" in capsys.readouterr().out


def test_compare_prints_and_writes(files, capsys):
    scores = ["--scores", str(files / "scores.csv")]
    assert evaluate(words(files, *scores)) == 0
    capsys.readouterr()
    found = str(files / "out" / "result.json")
    assert main(["evaluate", "--compare", found, "--out", str(files / "side")]) == 0
    printed = capsys.readouterr().out
    written = (files / "side" / "comparison.md").read_text()
    for text in (printed, written):
        assert "GT-SVJ (No DM)" in text
        assert "quoted from the paper, not measured here" in text
        assert "pairs: pairs.csv w/ ties" in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "--benchmark is required"),
        ("--benchmark pairs --data d --out o", "exactly one of --scores and"),
        (
            "--benchmark pairs --data d --out o --scores s --judge j --latents l",
            "exactly one of --scores and",
        ),
        ("--benchmark pairs --data d --out o --judge j", "--judge and --latents"),
        ("--benchmark pairs --data d --out o --scores s --latents l", "--judge and"),
        ("--compare r --scores s", "--compare does not score"),
        ("--benchmark genai", "invalid choice: 'genai'"),
    ],
)
def test_flags_that_do_not_go_together(flags, message, capsys):
    with pytest.raises(SystemExit):
        evaluate(flags.split())
    assert message in capsys.readouterr().err


def test_columns_for_labels():
    assert columns_for(["VQ=aspect:clear", "TA=x+y"]) == {"VQ": "aspect:clear", "TA": "x+y"}
    for bad in (["VQ"], ["VQ="], ["=x"], ["VQ=x", "VQ=y"]):
        with pytest.raises(ValueError, match="--column_for takes LABEL=COLUMN"):
            columns_for(bad)


def test_a_benchmark_in_its_own_format(tmp_path, capsys):
    (tmp_path / "bench.csv").write_text(
        "path_A,path_B,A_model,B_model,prompt,VQ,MQ,TA,Overall,fps_A,num_frames_A,fps_B,num_frames_B\n"
        "videos/m/1.mp4,videos/n/1.mp4,m,n,x,A,B,same,A,8,49,8,49\n"
        "videos/m/2.mp4,videos/n/2.mp4,m,n,y,B,invalid,same,B,8,49,8,49\n"
        "videos/m/3.mp4,videos/n/3.mp4,m,n,z,A,A,B,A,8,49,8,49\n"
    )
    (tmp_path / "s.csv").write_text(
        "video,score\nm/1.mp4,2\nn/1.mp4,1\nm/2.mp4,3\nn/2.mp4,1\nm/3.mp4,5\nn/3.mp4,1\n"
    )
    flags = ["--benchmark", "videogen-rewardbench", "--data", str(tmp_path / "bench.csv"),
             "--scores", str(tmp_path / "s.csv"), "--out", str(tmp_path / "out"),
             "--resamples", "1"]  # fmt: skip
    assert main(["evaluate", *flags]) == 0, capsys.readouterr().err
    result = result_in(tmp_path / "out")
    # By hand, differences 1, 2, 4: overall A, B, A is 2 of 3 right; MQ B, -, A is 1 of 2; TA same,
    # same, B is right twice at any threshold from 2 to below 4.
    found = {a.dimension: a.accuracies for a in result.dimensions}
    assert found["overall"]["without_ties"].accuracy == 2 / 3
    assert found["MQ"]["without_ties"].accuracy == 1 / 2
    assert found["TA"]["with_ties"].accuracy == 2 / 3
    assert found["TA"]["with_ties"].threshold == 2.0
    assert list(result.left_out_labels.values()) == [1]
    assert {item.model: item.mean for item in result.model_scores} == {"m": 10 / 3, "n": 1.0}
    page = (tmp_path / "out" / "result.md").read_text()
    assert "1 labels left out: `MQ` is invalid" in page


def test_a_judge_of_prompts_is_evaluated_with_them_and_without(tmp_path, capsys):
    """Text alignment with the prompt and without: what the judge makes of the prompt is the gap."""
    tiny_transformer().save_pretrained(tmp_path / "base")
    save_judge(moment_judge(base_model=str(tmp_path / "base"), **READS), tmp_path / "judge")
    folder = write_clips(tmp_path / "latents", 6)
    (tmp_path / "pairs.csv").write_text(
        "video_a,video_b,label\n0.mp4,1.mp4,1\n2.mp4,3.mp4,-1\n4.mp4,5.mp4,1\n0.mp4,3.mp4,1\n"
    )
    (tmp_path / "ratings.csv").write_text(
        "video,clear\n" + "".join(f"{index}.mp4,{index}\n" for index in range(6))
    )
    common = ["--judge", str(tmp_path / "judge"), "--latents", str(tmp_path / "latents")]
    common += ["--device", "cpu"]
    assert evaluate(words(tmp_path, *common)) == 0
    (note,) = result_in(tmp_path / "out").notes
    assert "none are stored beside the latents: clips were scored without prompts" in note
    said = {f"{index}.mp4": ("a dog", "a red square")[index % 2] for index in range(6)}
    write_texts(folder.path, list(said), said, PromptEncoder(frozen(cogvideox)))
    capsys.readouterr()
    assert evaluate([*words(tmp_path, *common), "--out", str(tmp_path / "both")]) == 0
    printed = capsys.readouterr().out
    assert "with and without prompts:" in printed
    first, second = (
        EvaluationResult.from_json((tmp_path / "both" / name).read_text())
        for name in ("result.json", "result-without-prompts.json")
    )
    assert (first.scorer, second.scorer) == ("judge", "judge-without-prompts")
    assert first.notes == ("each clip was scored with its prompt",)
    assert second.notes == ("clips were scored without prompts",)
    tables = [read_scores(tmp_path / "both" / f"scores{end}.csv").columns["raw"]
              for end in ("", "-without-prompts")]  # fmt: skip
    assert all(abs(tables[0][video] - tables[1][video]) > 1e-6 for video in said)
    ratings = ["--benchmark", "ratings", "--data", str(tmp_path / "ratings.csv"), *common]
    out = ["--out", str(tmp_path / "rated"), "--resamples", "1"]
    assert evaluate([*ratings, *out, "--column_for", "clear=raw"]) == 0
    assert (tmp_path / "rated" / "ratings-without-prompts.json").is_file()
