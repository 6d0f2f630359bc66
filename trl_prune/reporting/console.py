"""What a run prints on the terminal when it ends."""

import json

from rich.console import Console
from rich.table import Table

from trl_prune.reporting.page import PAGES
from trl_prune.reporting.rendering import percent, plain
from trl_prune.reporting.results import RunResults
from trl_prune.runs.context import Run


def show_recovery(run: Run) -> None:
    """Print the recovery table, the differences between arms and the path of the report."""
    results = RunResults(run)
    console = Console()
    if results.scores.get("dense"):
        for group in results.groups:
            console.print(_recovery_table(results, group))
        for row in results.differences:
            difference = f"{row['one']} - {row['other']} = {row['value']:+.3f} ± {row['stderr']:.3f}"
            console.print(f"{row['group']}: {difference} (paired on the same items)")
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


def show_search(run: Run) -> None:
    """Print the candidates of a search, best first, and the path of the winner's plan."""
    search = json.loads(run.folder.output("search", "candidates").read_text())
    table = Table("size", title=f"Search, by {search['score']}")
    for name in ("parameters", "untrained", *(f"{tokens:,} tokens" for tokens in search["tokens"][1:])):
        table.add_column(name, justify="right")
    for candidate in search["candidates"]:
        scores = (f"{score:.4f}" for score in candidate["scores"])
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
