"""What a run prints on the terminal when it ends."""

import json
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trl_prune.evaluation.comparison import ComparedModels
from trl_prune.reporting.comparison_page import verdicts as comparison_verdicts
from trl_prune.reporting.comparison_tables import (
    GROUP_COLUMNS,
    LEGEND,
    TASK_COLUMNS,
    group_cells,
    notes,
    task_cells,
    task_notes,
)
from trl_prune.reporting.comparisons import verdicts
from trl_prune.reporting.page import PAGES
from trl_prune.reporting.plots.recovery_curve import arm_curves
from trl_prune.reporting.rendering import percent, plain
from trl_prune.reporting.results import RunResults
from trl_prune.runs.context import Run


# Columns of pages that a terminal has no room for.
WIDE_COLUMNS = ("chance", "number", "note")
# Characters of a question or answer among those that changed.
SHOWN_CHARACTERS = 60


def show_recovery(run: Run) -> None:
    """Print the recovery tables, the differences between arms, and last the verdicts and the path of the report."""
    results = RunResults(run)
    console = Console()
    if results.scores.get("dense"):
        for group in results.groups:
            console.print(_recovery_table(results, group))
        for row in results.differences:
            difference = f"{row['one']} - {row['other']} = {row['value']:+.3f} ± {row['stderr']:.3f}"
            console.print(f"{row['group']}: {difference} (paired on the same items)")
    _print_lines(console, [f"{name}: {curve.summary}." for name, curve in arm_curves(results).items()])
    _print_lines(console, verdicts(results))
    page = run.folder.stage_dir("report") / PAGES[0]
    if page.is_file():
        console.print(f"report: {page}", soft_wrap=True)


def _recovery_table(results: RunResults, group: str) -> Table:
    table = Table("model", title=f"Recovery, {group} (± one standard error over items)")
    for name in ("score", "recovery %", "above chance %", "gap closed %"):
        table.add_column(name, justify="right")
    for row in results.rows:
        if row.group == group:
            recovery = row.recovery
            gap_closed = "" if row.model in ("dense", "pruned") else percent(recovery.gap_closed)
            above_chance = percent(recovery.corrected)
            table.add_row(row.model, plain(recovery.score), percent(recovery.recovery), above_chance, gap_closed)
    return table


def show_comparison(compared: ComparedModels) -> None:
    """Print one sentence on each model, the tables, and an answer that changed on each task where it is worse."""
    console = Console()
    _print_lines(console, comparison_verdicts(compared))
    for name, comparison in compared.comparisons.items():
        console.print(_text_table(f"{name} beside {compared.dense}", TASK_COLUMNS, task_cells(comparison)))
        # The tasks' notes are a column that a terminal has no room for.
        beside = [(task.task, "; ".join(task_notes(task))) for task in comparison.tasks]
        _print_lines(console, [f"{task}: {note}" for task, note in beside if note])
        console.print(_text_table("Groups of tasks", GROUP_COLUMNS, group_cells(comparison)))
        _print_lines(console, _lost_answers(compared, name))
    _print_lines(console, [f"note: {note}" for note in notes(compared)])
    console.print(LEGEND, markup=False, highlight=False)


def _print_lines(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _lost_answers(compared: ComparedModels, name: str) -> list[str]:
    """Return an answer that changed, in a line, for each task where a model is worse."""
    worse, lines = {task.task for task in compared.comparisons[name].worse}, []
    for flip in compared.flips(name, examples=1):
        if flip.task in worse and flip.direction == "lost":
            question, target, dense, model = map(_end, (flip.question, flip.target, flip.dense, flip.model))
            answers = f"{target}; {compared.dense}: {dense}; {name}: {model}"
            lines.append(f"{flip.task}, lost: {question} -> {answers}")
    return lines


def _text_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table that fits a terminal of 80 columns: without those that pages have beside."""
    shown = [index for index, column in enumerate(columns) if column not in WIDE_COLUMNS]
    table = Table(title=title, box=None, padding=(0, 1, 0, 0))
    for index in shown:
        header = columns[index].replace(" ", "\n")
        table.add_column(header, justify="right" if index else "left", no_wrap=index > 0)
    for row in rows:
        table.add_row(*(escape(row[index]) for index in shown))
    return table


def _end(text: str) -> str:
    return repr(" ".join(text.split())[-SHOWN_CHARACTERS:])


def show_search(run: Run) -> None:
    """Print the candidates of a search, best first, and the path of the winner's plan."""
    search = json.loads(run.folder.output("search", "candidates").read_text())
    table = Table("size", title=f"Search, by {search['score']}")
    for name in ("parameters", "untrained", *(f"{tokens:,} tokens" for tokens in search["tokens"][1:])):
        table.add_column(name, justify="right")
    for candidate in search["candidates"]:
        scores = ("-" if score is None else f"{score:.4f}" for score in candidate["scores"])
        table.add_row(candidate["name"], f"{candidate['parameters']:,}", *scores)
    console = Console()
    console.print(table)
    console.print(f"plan: {run.folder.output('search', 'keep')}", soft_wrap=True)


def show_selection(run: Run) -> None:
    """Print the selections, and what pruning broke, the most degraded cluster first."""
    selection = RunResults(run).selection
    table = Table("selection", title=f"Selected of {selection['pool']['candidates']:,} candidates")
    for name in ("rows", "tokens", "mean divergence"):
        table.add_column(name, justify="right")
    for one in selection["selections"]:
        table.add_row(one["name"], f"{one['rows']:,}", f"{one['tokens']:,}", _figure(one["mean_divergence"]))
    console = Console()
    console.print(table)
    if selection["clusters"]:
        console.print(_cluster_table(selection["clusters"]))
    console.print(f"rows: {run.folder.output('select', 'dataset')}", soft_wrap=True)


def _cluster_table(clusters: list[dict]) -> Table:
    table = Table("cluster", title="What pruning broke (nats a token of the answers)")
    for name in ("degradation", "rows", "chosen"):
        table.add_column(name, justify="right")
    for one in clusters:
        phrases = f"{one['cluster']}: {', '.join(one['phrases'])}"
        table.add_row(phrases, _figure(one["degradation"]), f"{one['rows']:,}", f"{one['selected']:,}")
    return table


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
