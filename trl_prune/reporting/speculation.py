"""What was measured of drafts, as the report and the terminal show it."""

import json

from rich.console import Console
from rich.table import Table

from trl_prune.evaluation.speculative.snippets import transformers_snippet, vllm_snippet
from trl_prune.evaluation.timing import Interval
from trl_prune.runs.artifacts import TIMING
from trl_prune.runs.context import Run
from trl_prune.runs.speculation import draft_dir, drafts_of
from trl_prune.runs.stage import Panel


HEADINGS = (
    "draft", "decoding", "acceptance", "draft cost", "best length", "tokens a call, expected", "measured",
    "speed-up, predicted", "bound", "measured",
)  # fmt: skip


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
    return speed["best_measured"].get(kind, speed["predicted"][kind][0]["best"])


def view(run: Run, speculation: dict[str, dict]) -> dict:
    """Return what the tables of the report show."""
    return {
        "headings": HEADINGS,
        "rows": table_rows(speculation),
        "batches": batch_rows(speculation),
        "capabilities": capability_rows(speculation),
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
    expected, prediction = acceptance["expected"][kind], speed["predicted"][kind][0]
    counted = acceptance["measured"].get(kind, {}).get(length)
    measured = speed["measured"].get(kind, {}).get(length)
    return [
        f"{expected['alpha']:.3f}",
        f"{speed['costs'][0]['cost_ratio']['value']:.2f}",
        length,
        f"{expected['by_length'][length]['tokens_per_call']:.2f}",
        "" if counted is None else f"{counted['tokens_per_call']:.2f}",
        f"{prediction['expected'][length]:.2f}x",
        f"{prediction['bound'][length]:.2f}x",
        "" if measured is None else str(Interval(**measured)),
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
        return measured["value"] if measured else one["predicted"]["greedy"][0]["expected"][length]

    return max(speculation, key=speed)


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
    table = Table(HEADINGS[0], title="Drafts of the dense model, one text at a time")
    for heading in HEADINGS[1:]:
        table.add_column(heading, justify="right")
    for row in table_rows(speculation):
        table.add_row(*row)
    console.print(table)
    for name, one in speculation.items():
        for sentence in one["speed"]["warnings"]:
            console.print(f"{name}: {sentence}", highlight=False)
    for library, text in snippets(run, speculation).items():
        console.print(f"\n{library}:", text, sep="\n", highlight=False, soft_wrap=True, markup=False)


SPECULATION_TABLE = Panel("speculation_table", lambda results: results.speculation)
