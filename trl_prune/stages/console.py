"""What a run shows on the terminal when it ends."""

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
