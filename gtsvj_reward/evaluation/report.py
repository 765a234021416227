"""An evaluation for people: `result.md`, and the few lines that the command prints."""

from collections.abc import Sequence

from gtsvj_reward.evaluation.accuracies import CROSS_FITTED, FITTED, METHODS
from gtsvj_reward.evaluation.result import Accuracy, Agreement, EvaluationResult
from gtsvj_reward.evaluation.scores import ASPECT_PREFIX
from gtsvj_reward.tables import markdown_table, percent, text_table

SHORT = (CROSS_FITTED, "without_ties", "with_ties")
"""Methods in the tables of one line per generator or aspect."""

READING = (
    "Accuracies are in percent. Compare each with `chance` (random scores) and `constant` (the "
    "same score for every video): with ties, 50 can be worse than a constant score. `threshold` "
    "is the largest score difference that counts as a tie. "
    f'"{METHODS[CROSS_FITTED]}" uses a threshold fitted on other pairs, as for new pairs. '
    f'"{METHODS["with_ties"]}" is fitted on the pairs of the row, as in published tables: it is '
    "too high, most of all with few pairs, and has no interval."
)


def result_markdown(result: EvaluationResult) -> str:
    """The text of `result.md`."""
    parts = [
        f"# {result.scorer} on {result.data}\n",
        "\n".join(f"- {line}" for line in facts(result)) + "\n",
        READING + "\n",
        "## By label\n",
        markdown_table(accuracy_rows(result.dimensions)),
    ]
    if result.models:
        parts += ["## By generator\n", "A pair counts for both of its generators.\n"]
        parts.append(markdown_table(model_rows(result.models)))
        parts.append(markdown_table(model_score_rows(result)))
    if result.aspects:
        parts += [f"## Aspects against `{result.aspects[0].dimension}`\n"]
        parts.append(markdown_table(aspect_rows(result.aspects)))
    if any(item.votes is not None for item in result.dimensions):
        parts += ["## Agreement with votes\n", VOTES + "\n"]
        parts.append(markdown_table(vote_rows(result.dimensions)))
    parts += ["## Score differences as probabilities\n", WIN_RATES + "\n"]
    parts.append(markdown_table(win_rate_rows(result.dimensions)))
    notes = undefined_notes([*result.dimensions, *result.models, *result.aspects])
    if notes:
        parts += ["## Undefined\n", "\n".join(f"- {note}" for note in notes) + "\n"]
    return "\n".join(parts)


def result_text(result: EvaluationResult) -> str:
    """The text that the command prints: the facts, and a line per label."""
    text = "\n".join(facts(result)) + "\n\n" + text_table(label_rows(result.dimensions))
    if any(item.votes is not None for item in result.dimensions):
        text += "\n" + text_table(vote_rows(result.dimensions))
    return text


def facts(result: EvaluationResult) -> list[str]:
    """How much was evaluated, and how."""
    left_out = result.comparisons - result.evaluated
    lines = [
        f"n = {result.evaluated} of {result.comparisons} comparisons of {result.videos} videos "
        f"({result.benchmark}, {result.data}), scored by {result.scorer}",
    ]
    if left_out or result.missing_videos:
        lines.append(
            f"incomplete: {left_out} comparisons left out, {len(result.missing_videos)} videos "
            "without a score (named in result.json)"
        )
    lines += [f"note: {note}" for note in result.notes]
    lines += [
        f"{count} labels left out: {reason}" for reason, count in result.left_out_labels.items()
    ]
    settings = result.settings
    lines.append(
        f"intervals: {settings.confidence:.0%}, {settings.resamples} resamples of whole "
        f"{result.resampled}, seed {settings.seed}; {settings.calibration_fraction:.0%} of the "
        f"{result.resampled} set aside to fit the held-out threshold"
    )
    return lines


def accuracy_rows(items: Sequence[Agreement]) -> list[list[str]]:
    """A line for each label and method, with everything it rests on."""
    header = ["label", "column", "method", "accuracy", "interval", "chance", "constant"]
    rows = [[*header, "pairs", "human ties", "predicted ties", "threshold", "fitted on"]]
    for item in items:
        for name, found in item.accuracies.items():
            row = [item.dimension, item.column, METHODS[name], percent(found.accuracy)]
            row += [interval_text(name, found), percent(found.chance), percent(found.constant)]
            row += [str(found.pairs), str(found.human_ties), str(found.predicted_ties)]
            rows.append([*row, *threshold_cells(name, found)])
    return rows


def threshold_cells(name: str, found: Accuracy) -> list[str]:
    """A method's threshold, and what it was fitted on."""
    if found.threshold is None:
        return ["", ""]
    fitted_on = "these pairs"
    if name == CROSS_FITTED:
        fitted_on = "these pairs, for new ones; each answered by other folds"
    elif found.calibration_pairs is not None:
        fitted_on = f"{found.calibration_pairs} other pairs"
    return [f"{found.threshold:.6g}", fitted_on]


def label_rows(items: Sequence[Agreement]) -> list[list[str]]:
    """A line for each label."""
    return short_rows(items, ["label"], [[item.dimension] for item in items])


def model_rows(items: Sequence[Agreement]) -> list[list[str]]:
    """A line for each generator and label."""
    starts = [[item.model or "", item.dimension] for item in items]
    return short_rows(items, ["generator", "label"], starts)


def aspect_rows(items: Sequence[Agreement]) -> list[list[str]]:
    """A line for each aspect."""
    starts = [[item.column.removeprefix(ASPECT_PREFIX)] for item in items]
    return short_rows(items, ["aspect"], starts)


def short_rows(
    items: Sequence[Agreement], headings: Sequence[str], starts: Sequence[Sequence[str]]
) -> list[list[str]]:
    """A line for each agreement with the main metrics, after cells that name it."""
    rows = [[*headings, "column", "pairs", "human ties"]]
    for name in SHORT:
        rows[0] += [METHODS[name], "chance / constant"]
    for item, start in zip(items, starts, strict=True):
        row = [*start, item.column, str(item.pairs), str(item.human_ties)]
        for name in SHORT:
            found = item.accuracies.get(name)
            row += ["undefined", ""] if found is None else short_cells(name, found)
        rows.append(row)
    return rows


def short_cells(name: str, found: Accuracy) -> list[str]:
    """Accuracy with its interval and its baselines."""
    return [
        f"{percent(found.accuracy)} ({interval_text(name, found)}, n {found.pairs})",
        f"{percent(found.chance)} / {percent(found.constant)}",
    ]


def interval_text(name: str, found: Accuracy) -> str:
    """Both ends in percent, or why there are none."""
    if found.interval is None:
        return "in-sample" if name in FITTED else "one group alone"
    return f"{percent(found.interval[0])}-{percent(found.interval[1])}"


def model_score_rows(result: EvaluationResult) -> list[list[str]]:
    """A line for each generator and column."""
    rows = [["generator", "column", "mean score", "videos"]]
    scores = result.model_scores
    rows += [[s.model, s.column, f"{s.mean:.4f}", str(s.videos)] for s in scores]
    return rows


WIN_RATES = (
    "P(A wins) = sigmoid((score A - score B) / scale), without human ties; the scale is the most "
    "likely one on these pairs. Log loss in nats, 0.693 for knowing nothing."
)


def win_rate_rows(items: Sequence[Agreement]) -> list[list[str]]:
    """A line for each label."""
    rows = [["label", "scale", "log loss", "observed where predicted (pairs)"]]
    for item in items:
        if item.win_rates is None:
            rows.append([item.dimension, "undefined", "", item.undefined["win_rates"]])
            continue
        bins = [f"{b.observed:.2f} at {b.predicted:.2f} ({b.pairs})" for b in item.win_rates.bins]
        rates = item.win_rates
        rows.append(
            [item.dimension, f"{rates.scale:.6g}", f"{rates.log_loss:.4f}", ", ".join(bins)]
        )
    return rows


VOTES = (
    "For labels that are probabilities, or rows with weights: the share of votes, in percent, for "
    "the clip with the higher score; equal and random scores get one half. No "
    "scores get more than the ceiling, since people differ. Log loss in nats, of P(A) = "
    "sigmoid((score A - score B) / scale) at the most likely scale; it is never below the entropy "
    "of the votes. Accuracies elsewhere count the side with more votes, each pair once."
)


def vote_rows(items: Sequence[Agreement]) -> list[list[str]]:
    """A line for each label that is a probability."""
    rows = [["label", "votes", "interval", "ceiling", "log loss", "entropy", "pairs", "weight"]]
    for item in items:
        if (votes := item.votes) is None:
            continue
        ends = "one group alone"
        if votes.interval is not None:
            ends = f"{percent(votes.interval[0])}-{percent(votes.interval[1])}"
        loss = "undefined" if votes.log_loss is None else f"{votes.log_loss:.4f}"
        cells = [percent(votes.agreement), ends, percent(votes.ceiling), loss]
        rows.append(
            [item.dimension, *cells, f"{votes.entropy:.4f}", str(votes.pairs), f"{votes.weight:g}"]
        )
    return rows


def undefined_notes(items: Sequence[Agreement]) -> list[str]:
    """Metrics that are undefined, and why."""
    return [
        f"{item.dimension} by `{item.column}`{f' for {item.model}' if item.model else ''}, "
        f"{METHODS.get(name, 'win rates')}: {reason}"
        for item in items
        for name, reason in item.undefined.items()
    ]
