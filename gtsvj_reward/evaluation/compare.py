"""Several results side by side, with the paper's printed numbers above them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from gtsvj_reward.evaluation.accuracies import CROSS_FITTED, METHODS
from gtsvj_reward.evaluation.align import overall_dimension
from gtsvj_reward.evaluation.published import NOTE, PUBLISHED, SOURCE
from gtsvj_reward.evaluation.result import Agreement, EvaluationResult
from gtsvj_reward.tables import markdown_table, percent, text_table

TITLES = {
    "genai-bench": "GenAI-Bench",
    "monetbench": "MonetBench",
    "videogen-rewardbench": "VideoGen-RewardBench",
}
"""Benchmarks that the paper reports on -> their names."""

SHOWN = {"with_ties": "w/ ties", "without_ties": "w/o ties"}
"""Methods of the paper's table -> its headings."""

Column = tuple[str, str]
"""Benchmark, plus the fingerprint of the data if users bring their own."""


def read_results(paths: Sequence[str | Path]) -> dict[str, EvaluationResult]:
    """Files `result.json`, by path.

    Raises:
        FileNotFoundError: if one is not there.
        ValueError: if one is not a result, with its path.
    """
    return {str(path): read_result(Path(path)) for path in paths}


def read_result(path: Path) -> EvaluationResult:
    """One file; see `read_results`."""
    try:
        return EvaluationResult.from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def comparison_markdown(results: Mapping[str, EvaluationResult]) -> str:
    """Both tables and their notes, as Markdown."""
    tables = [markdown_table(accuracy_table(results)), markdown_table(basis_table(results))]
    return f"{tables[0]}\n{notes(results)}\n\n{tables[1]}"


def comparison_text(results: Mapping[str, EvaluationResult]) -> str:
    """Both tables and their notes, for the terminal."""
    tables = [text_table(accuracy_table(results)), text_table(basis_table(results))]
    return f"{tables[0]}\n{notes(results)}\n\n{tables[1]}"


def accuracy_table(results: Mapping[str, EvaluationResult]) -> list[list[str]]:
    """Header, the paper's methods, then one row per scorer; accuracies in percent.

    Args:
        results: file -> result. Results of one scorer on different benchmarks share a row.

    Raises:
        ValueError: for two results of one scorer on the same data, or a result with several labels
            of which none is the overall one.
    """
    columns = columns_of(results)
    header = ["method", "source"]
    for benchmark, fingerprint in columns:
        title = TITLES.get(benchmark) or own_title(results, fingerprint)
        header += [f"{title} {heading}" for heading in SHOWN.values()]
    rows = [header]
    for method, accuracies in PUBLISHED.items():
        row = [method, NOTE]
        for benchmark, _ in columns:
            printed = accuracies.get(benchmark)
            values = () if printed is None else (printed.with_ties, printed.without_ties)
            row += [f"{value:.2f}" for value in values] or ["", ""]
        rows.append(row)
    for scorer in dict.fromkeys(result.scorer for result in results.values()):
        row = [scorer, "measured"]
        for column in columns:
            row += measured_cells(results, scorer, column)
        rows.append(row)
    return rows


def columns_of(results: Mapping[str, EvaluationResult]) -> list[Column]:
    """The paper's benchmarks, then one's own data, each of its own."""
    own = [column_of(result) for result in results.values()]
    return list(dict.fromkeys([*((name, "") for name in TITLES), *own]))


def column_of(result: EvaluationResult) -> Column:
    """The column of a result: only results on equal data share a column of `pairs`."""
    return result.benchmark, "" if result.benchmark in TITLES else result.fingerprint


def own_title(results: Mapping[str, EvaluationResult], fingerprint: str) -> str:
    """Name of a column of own data, with its fingerprint if the name is ambiguous."""
    names = {result.fingerprint: result.data for result in results.values()}
    name = names[fingerprint]
    alone = list(names.values()).count(name) == 1
    return f"pairs: {name}" if alone else f"pairs: {name} ({fingerprint[:8]})"


def measured_cells(
    results: Mapping[str, EvaluationResult], scorer: str, column: Column
) -> list[str]:
    """Accuracies of a scorer in one column, each with its n; empty if it was not measured."""
    found = {
        path: result
        for path, result in results.items()
        if result.scorer == scorer and column_of(result) == column
    }
    if len(found) > 1:
        raise ValueError(
            f"{' and '.join(found)} are both of {scorer!r} on the same benchmark: evaluate one of "
            "them again with another `--name`, or leave one out"
        )
    for path, result in found.items():
        accuracies = overall(path, result).accuracies
        mark = "" if result.evaluated == result.comparisons else ", incomplete"
        return [
            f"{percent(accuracies[name].accuracy)} (n {accuracies[name].pairs}{mark})"
            if name in accuracies
            else "undefined"
            for name in SHOWN
        ]
    return ["", ""]


def overall(path: str, result: EvaluationResult) -> Agreement:
    """The agreement with the overall label, or with the only one.

    Raises:
        ValueError: if there are several labels and none is the overall one.
    """
    by_name = {item.dimension: item for item in result.dimensions}
    name = overall_dimension(by_name)
    if name is None:
        raise ValueError(
            f"{path} has the labels {', '.join(by_name)} and none is called overall: "
            "only results with an overall label, or with a single one, can be compared"
        )
    return by_name[name]


def basis_table(results: Mapping[str, EvaluationResult]) -> list[list[str]]:
    """The basis of each measured number, and the accuracy of uninformed scores on its pairs."""
    header = ["file", "scorer", "benchmark", "data", "label", "column", "evaluated"]
    header += [
        "w/ ties: chance",
        "w/ ties: constant score",
        METHODS[CROSS_FITTED],
        "w/o ties: chance",
    ]
    rows = [header]
    for path, result in results.items():
        item = overall(path, result)
        fitted, crossed = item.accuracies.get("with_ties"), item.accuracies.get(CROSS_FITTED)
        row = [path, result.scorer, result.benchmark, f"{result.data} ({result.fingerprint[:8]})"]
        row += [item.dimension, item.column, f"{result.evaluated} of {result.comparisons}"]
        row += ["", ""] if fitted is None else [percent(fitted.chance), percent(fitted.constant)]
        row.append(
            "undefined" if crossed is None else f"{percent(crossed.accuracy)} (n {crossed.pairs})"
        )
        row.append(percent(0.5))
        rows.append(row)
    return rows


def notes(results: Mapping[str, EvaluationResult]) -> str:
    """Notes for reading the table."""
    lines = [
        f'Rows marked "{NOTE}" are from the {SOURCE} (there MonetBench is called MonteBench, and '
        "VideoGen-RewardBench VideoReward-Bench). Their data, number of pairs and treatment of "
        "ties may differ from those measured.",
        "Measured: with ties by Deutsch et al., threshold fitted on the same pairs, which is too "
        "high; without ties human ties are left out. n is the number of pairs; `incomplete`: "
        "videos were missing.",
    ]
    for benchmark, title in TITLES.items():
        prints = {r.fingerprint: r.data for r in results.values() if r.benchmark == benchmark}
        if len(prints) > 1:
            shown = ", ".join(f"{name} ({key[:8]})" for key, name in prints.items())
            lines.append(
                f"CAUTION: the results on {title} come from different data: {shown}. "
                "They are not comparable with each other."
            )
    return "\n\n".join(lines)
