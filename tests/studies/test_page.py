"""The study's arithmetic: intervals, outcomes, rows."""

import math

import pytest

from studies import page, rows, running


def results(**accuracies):
    """Row -> seeds -> a record whose cross-content accuracy is the number given."""
    return {
        name: {
            seed: {"accuracy": {"cross/seen": [value, 100]}} for seed, value in enumerate(values)
        }
        for name, values in accuracies.items()
    }


def claim(better="a", worse="b"):
    return page.Claim("text", better, worse, page.CROSS, "pairs")


def test_an_interval_is_student_t_by_hand():
    # 3 seeds: t(0.975, 2) = 4.3027; standard deviation of 0.6, 0.7, 0.8 is 0.1.
    estimate = page.Estimate.of([0.6, 0.7, 0.8])
    assert estimate.value == pytest.approx(0.7)
    assert estimate.half == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-4)
    assert estimate.show() == "70.0 ± 24.8"
    assert page.Estimate.of([0.5]).show() == "50.0"


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        ([0.80, 0.81, 0.82], [0.70, 0.71, 0.72], "**held**"),
        ([0.70, 0.71, 0.72], [0.80, 0.81, 0.82], "**did not hold**"),
        # No difference, and the interval is too small for one of two points.
        ([0.700, 0.710, 0.720], [0.701, 0.709, 0.720], "**did not hold**"),
        ([0.70, 0.80, 0.90], [0.75, 0.74, 0.70], "inconclusive"),
        ([0.7], [0.6], "inconclusive (one seed)"),
        ([0.7], [], "not run yet"),
    ],
)
def test_outcomes_follow_the_interval_of_the_paired_difference(first, second, outcome):
    assert claim().outcome(results(a=first, b=second))[0] == outcome


def test_differences_are_paired_by_seed():
    """Seeds that move both rows alike leave the difference exact."""
    table = results(a=[0.6, 0.7, 0.9], b=[0.5, 0.6, 0.8])
    outcome, gap = claim().outcome(table)
    assert outcome == "**held**"
    assert gap.value == pytest.approx(0.1)
    assert gap.half == pytest.approx(0, abs=1e-12)


def test_every_claim_compares_rows_that_exist():
    names = {row.name for row in rows.rows()} | {*rows.BASELINES}
    assert len(names) == len(rows.rows()) + len(rows.BASELINES)
    for item in page.claims():
        assert {item.better, item.worse} <= names


def test_rows_that_share_a_discriminator_are_the_same_discriminator():
    by_name = {}
    for row in rows.rows():
        if row.stage1 is not None:
            assert by_name.setdefault(row.stage1.name, row.stage1) == row.stage1
    assert by_name["full"] == rows.FULL


def test_samplers_have_the_shares_they_are_named_for():
    table = rows.sampler_of("table", None).real
    uniform = rows.sampler_of("uniform", None).real
    assert uniform["generated"] == pytest.approx(table["generated"])
    assert len({round(v, 9) for k, v in uniform.items() if k != "generated"}) == 1
    assert sum(uniform.values()) == pytest.approx(1)
    assert rows.sampler_of("generated", None).real["generated"] == 1
    assert rows.sampler_of("anchors", None).real_anchor_probability == 0.6
    with pytest.raises(ValueError, match="no sampler for 'calibrated'"):
        rows.sampler_of("calibrated", None)


def test_the_bundled_judge_is_said_to_fail_where_its_interval_holds_one_half():
    # 24 of 32 is 58 to 87 percent by Wilson, 18 of 32 is 39 to 72.
    record = {"accuracy": {"same/blur": [0.75, 32], "same/noise": [0.5625, 32]}}
    assert page.shipped_line(record, ["same/blur"], "blur", True) == [
        "blur", "yes", "75.0", "58 to 87 (32 pairs)", "beats chance"
    ]  # fmt: skip
    assert page.shipped_line(record, ["same/noise"], "noise", False)[3:] == [
        "39 to 72 (32 pairs)", "**does not beat chance**"
    ]  # fmt: skip
    # Together 42 of 64.
    both = page.shipped_line(record, ["same/blur", "same/noise"], "both", True)
    assert both[2:4] == ["65.6", "53 to 76 (64 pairs)"]


def test_operations_of_the_toy_judge_are_those_counted_by_hand():
    # 5 latent frames of 8x8 in patches of 2: 80 tokens, and 8 of text, 128 wide. A product of
    # (m, k) and (k, n) takes 2 m k n; attention has two products of 88 x 88 x 128.
    video, text, dim, six = 80, 8, 128, 6
    tokens = video + text
    block = 4 * 2 * tokens * dim**2  # q, k, v, out
    block += 2 * 2 * tokens**2 * dim
    block += 2 * 2 * tokens * dim * 4 * dim  # feed-forward
    block += 2 * 2 * 64 * 6 * dim  # modulation before each half
    embed = 2 * video * 16 * 4 * dim + 2 * text * 32 * dim + 2 * (dim * 64 + 64 * 64)
    head = 2 * video * dim * 16 + 2 * 5 * 16
    head += 2 * 64 * 2 * dim + 2 * video * dim * 64  # the model's own output
    options = {"lora_rank": 0, "head_width": 16}
    count = running.operations("gtsvj-toy-pipeline", options)
    assert count == six * block + embed + head
    assert running.operations("gtsvj-toy-pipeline", {**options, "depth": 2}) == (
        2 * block + embed + head
    )


def test_cheaper_rows_are_compared_within_a_seed_and_by_operations():
    table = results(
        full=[0.70, 0.72, 0.74], pooled_2=[0.701, 0.722, 0.743], stride_2=[0.60, 0.63, 0.63],
        half_depth=[0.65, 0.72, 0.79],
    )  # fmt: skip
    costs = dict.fromkeys(rows.CHEAPER, 2_000_000) | {"full": 8_000_000}
    lines = page.cost_table(table, costs).splitlines()[2:]
    cells = {line.split("`")[1]: [cell.strip() for cell in line.split("|")[2:-1]] for line in lines}
    assert list(cells) == list(rows.CHEAPER)
    assert cells["full"][:3] == ["8.0", "1.00", "3"]
    # Differences 0.1, 0.2, 0.3 points: mean 0.2, half width 4.3027 * 0.1 / sqrt(3) = 0.25.
    assert cells["pooled_2"][4:] == ["+0.2 ± 0.2 (3 seeds)", "loses less than a point"]
    assert cells["stride_2"][1] == "0.25"
    assert cells["stride_2"][5] == "**loses more than a point**"
    assert cells["half_depth"][5] == "inconclusive"
    assert cells["third_depth"][2:4] == ["0", "not run yet"]


def test_cheaper_rows_are_rows_that_differ_in_the_judge_alone():
    by_name = {row.name: row for row in rows.rows()}
    for name in rows.CHEAPER[1:]:
        assert by_name[name].stage1 == rows.Stage1(name=name, judge=by_name[name].stage1.judge)
        assert by_name[name].stage1.judge
