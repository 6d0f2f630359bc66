"""What a run shows on the terminal when it ends."""

import json

from rich.console import Console
from rich.table import Table

from trl_prune.context import Run
from trl_prune.stages.findings import Findings
from trl_prune.stages.report import PAGES, percent, plain


def show_recovery(run: Run) -> None:
    """Print the table of recovery and the path of the report."""
    findings = Findings(run)
    console = Console()
    if "dense" in findings.scores:
        for group in findings.groups:
            console.print(_table(findings, group))
        for told in findings.differences:
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


def _table(findings: Findings, group: str) -> Table:
    table = Table("model", title=f"Recovery, {group} (± one standard error over items)")
    for name in ("score", "recovery %", "above chance %", "gap closed %"):
        table.add_column(name, justify="right")
    for line in findings.lines:
        if line.group == group:
            told = line.recovery
            gap = "" if line.model in ("dense", "pruned") else percent(told.gap_closed)
            table.add_row(line.model, plain(told.score), percent(told.recovery), percent(told.corrected), gap)
    return table
