"""What a run shows on the terminal when it ends."""

import json

from rich.console import Console
from rich.table import Table

from trl_prune.reporting.page import PAGES, percent, plain
from trl_prune.reporting.results import RunResults
from trl_prune.runs.context import Run


def show_recovery(run: Run) -> None:
    """Print the table of recovery and the path of the report."""
    results = RunResults(run)
    console = Console()
    if "dense" in results.scores:
        for group in results.groups:
            console.print(_table(results, group))
        for told in results.differences:
            difference = f"{told['one']} - {told['other']} = {told['value']:+.3f} ± {told['stderr']:.3f}"
            console.print(f"{told['group']}: {difference} (paired on the same items)")
    page = run.folder.path / "report" / PAGES[0]
    if page.is_file():
        console.print(f"report: {page}", soft_wrap=True)


def show_search(run: Run) -> None:
    """Print the candidates of a search, best first."""
    told = json.loads(run.folder.output("search", "candidates").read_text())
    table = Table("size", title=f"Search, by {told['score']}")
    for name in ("parameters", "untrained", *(f"{tokens:,} tokens" for tokens in told["tokens"][1:])):
        table.add_column(name, justify="right")
    for one in told["candidates"]:
        table.add_row(one["name"], f"{one['parameters']:,}", *(f"{score:.4f}" for score in one["scores"]))
    console = Console()
    console.print(table)
    console.print(f"plan: {run.folder.output('search', 'keep')}", soft_wrap=True)


def _table(results: RunResults, group: str) -> Table:
    table = Table("model", title=f"Recovery, {group} (± one standard error over items)")
    for name in ("score", "recovery %", "above chance %", "gap closed %"):
        table.add_column(name, justify="right")
    for line in results.lines:
        if line.group == group:
            told = line.recovery
            gap = "" if line.model in ("dense", "pruned") else percent(told.gap_closed)
            table.add_row(line.model, plain(told.score), percent(told.recovery), percent(told.corrected), gap)
    return table
