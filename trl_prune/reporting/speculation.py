"""What was measured of drafts, as the report and the terminal show it."""

import json

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trl_prune.evaluation.speculative.snippets import transformers_snippet, vllm_snippet
from trl_prune.evaluation.speculative.summary import one_text, read_interval
from trl_prune.runs.artifacts import TIMING
from trl_prune.runs.context import Run
from trl_prune.runs.speculation import draft_dir, drafts_of
from trl_prune.runs.stage import Panel


HEADINGS = (
    "draft", "decoding", "acceptance", "draft cost", "best length", "tokens a call, expected",
    "tokens a call, measured", "speed-up, predicted", "bound", "speed-up, measured",
)  # fmt: skip
# The columns that the terminal shows, which has less room than the report.
TERMINAL = (
    "draft",
    "decoding",
    "acceptance",
    "draft cost",
    "best length",
    "speed-up, predicted",
    "speed-up, measured",
)


def read_speculation(run: Run) -> dict[str, dict]:
    """Return what was measured of each draft: `{acceptance, speed}`, as `evaluation.speculative.summary` has them."""
    found = {}
    for name in drafts_of(run.recipe):
        result = run.folder.result("speculate", name)
        if result is not None:
            timing = json.loads((run.folder.stage_dir("speculate", name) / TIMING).read_text())
            found[name] = {"acceptance": result.metrics, "speed": timing["speed"]}
    return found


def best_length(speed: dict, kind: str) -> int:
    """Return a draft's best length, measured, or predicted where nothing was timed."""
    return speed["best_measured"].get(kind, one_text(speed["predicted"][kind])["best"])


def view(run: Run, speculation: dict[str, dict]) -> dict:
    """Return what the tables of the report show."""
    return {
        "headings": HEADINGS,
        "rows": table_rows(speculation),
        "batches": batch_rows(speculation),
        "capabilities": capability_rows(speculation),
        "caution": caution(speculation),
        "snippets": snippets(run, speculation),
    }


def table_rows(speculation: dict[str, dict]) -> list[list[str]]:
    """Return the table's cells, one row for each draft and way of decoding, under `HEADINGS`."""
    return [
        [name, kind, *_cells(one["acceptance"], one["speed"], kind)]
        for name, one in speculation.items()
        for kind in one["speed"]["predicted"]
    ]


def _cells(acceptance: dict, speed: dict, kind: str) -> list[str]:
    length = str(best_length(speed, kind))
    expected, prediction = acceptance["expected"][kind], one_text(speed["predicted"][kind])
    counted = acceptance["measured"].get(kind, {}).get(length)
    measured = speed["measured"].get(kind, {}).get(length)
    return [
        f"{expected['alpha']:.3f}",
        f"{one_text(speed['costs'])['cost_ratio']['value']:.2f}",
        length,
        f"{expected['by_length'][length]['tokens_per_call']:.2f}",
        "" if counted is None else f"{counted['tokens_per_call']:.2f}",
        f"{prediction['expected'][length]:.2f}x",
        f"{prediction['bound'][length]:.2f}x",
        "" if measured is None else str(read_interval(measured)),
    ]


def batch_rows(speculation: dict[str, dict]) -> list[list[str]]:
    """Return, for each draft and batch size, `[draft, batch size, draft cost, cost of verifying, best length, x]`."""
    rows = []
    for name, one in speculation.items():
        kind = next(iter(one["speed"]["predicted"]))
        for cost, prediction in zip(one["speed"]["costs"], one["speed"]["predicted"][kind], strict=True):
            length = str(prediction["best"])
            verifying = f"{cost['verification'][length]['value']:.2f}"
            ratio, speed = f"{cost['cost_ratio']['value']:.2f}", f"{prediction['expected'][length]:.2f}x"
            rows.append([name, str(cost["batch_size"]), ratio, verifying, length, speed])
    return rows


def capability_rows(speculation: dict[str, dict]) -> list[list[str]]:
    """Return the greedy acceptance of each capability, `[capability, tokens, of each draft]`; empty without any."""
    groups = [one["acceptance"]["expected"]["greedy"]["by_capability"] for one in speculation.values()]
    if not groups:
        return []
    return [
        [name, f"{found['tokens']:,}", *(f"{group[name]['alpha']:.3f}" for group in groups)]
        for name, found in groups[0].items()
    ]


def recommended(speculation: dict[str, dict]) -> str:
    """Return the draft that was measured to decode greedy text fastest, or is predicted to."""

    def speed(name: str) -> float:
        one = speculation[name]["speed"]
        length = str(best_length(one, "greedy"))
        measured = one["measured"].get("greedy", {}).get(length)
        return measured["value"] if measured else one_text(one["predicted"]["greedy"])["expected"][length]

    return max(speculation, key=speed)


def caution(speculation: dict[str, dict]) -> str:
    """Return what to know before the snippets: that the recommended draft does not pay, or may not; else nothing."""
    name = recommended(speculation)
    verdicts = speculation[name]["speed"]["pays"]
    losing = " and ".join(kind for kind, verdict in verdicts.items() if verdict is False)
    unknown = " and ".join(kind for kind, verdict in verdicts.items() if verdict is None)
    parts = [f"it does not make {losing} decoding faster"] if losing else []
    parts += [f"whether it makes {unknown} decoding faster was timed too seldom to say"] if unknown else []
    return f"Of these drafts {name} is the best, but {', and '.join(parts)}." if parts else ""


def snippets(run: Run, speculation: dict[str, dict]) -> dict[str, str]:
    """Return how the recommended draft is used, by library."""
    name = recommended(speculation)
    length = best_length(speculation[name]["speed"], "greedy")
    paths = str(run.dense_dir), str(draft_dir(run, name))
    return {
        "transformers": transformers_snippet(*paths, length),
        "vLLM (decodes in batches; not run here)": vllm_snippet(*paths, length),
    }


def show_speculation(run: Run) -> None:
    """Print the table of drafts, what to know before using them, and how the best is used."""
    speculation, console = read_speculation(run), Console()
    console.print(_terminal_table(speculation))
    for line in _lines(run, speculation):
        # Without markup: an interval's brackets would be taken for a style.
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _terminal_table(speculation: dict[str, dict]) -> Table:
    table = Table(title="Drafts of the dense model, one text at a time")
    for heading in TERMINAL:
        table.add_column(heading, justify="left" if heading in TERMINAL[:2] else "right")
    for row in table_rows(speculation):
        cells = dict(zip(HEADINGS, row, strict=True))
        table.add_row(*(Text(cells[heading]) for heading in TERMINAL))
    return table


def _lines(run: Run, speculation: dict[str, dict]) -> list[str]:
    """Return what is said below the table."""
    known = [f"{name}: {sentence}" for name, one in speculation.items() for sentence in one["speed"]["warnings"]]
    before = caution(speculation)
    uses = [f"\n{library}:\n{text}" for library, text in snippets(run, speculation).items()]
    return [*known, *([f"\n{before}"] if before else []), *uses]


SPECULATION_TABLE = Panel("speculation_table", lambda results: results.speculation)
