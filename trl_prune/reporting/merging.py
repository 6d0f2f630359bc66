"""Sentences on a merge: what was interpolated linearly, and what a search found."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from trl_prune.runs.context import Run


def merge_sentences(name: str, record: Mapping) -> list[str]:
    """Return what a user should know of a merge.

    Args:
        name: what to call it.
        record: `merge.json`'s content.
    """
    return [f"{name}: {sentence}" for sentence in (*_lerp(record), *_search(record), _proof(record))]


def _lerp(record: Mapping) -> list[str]:
    lerp = record.get("lerp")
    if not lerp or not lerp["count"]:
        return []
    example = f", such as {lerp['names'][0]}" if lerp["count"] < lerp["of"] else ""
    return [
        f"fell back to linear interpolation for {lerp['count']:,} of {lerp['of']:,} tensors, whose cosine is "
        f"above 0.9995{example}"
    ]


def _search(record: Mapping) -> list[str]:
    search = record.get("search")
    if not search:
        return []
    best = search["best_model"]
    alone = f"{_short(best['model'])} alone has {best['loss']:.4f} nats a token"
    if search["kept"]:
        return [f"no merge has less loss on the dev texts than one of the models, which is kept: {alone}"]
    value = record["parameters"][search["over"]]
    return [f"{search['over']} {value} has the least loss on the dev texts, {search['loss']:.4f}; {alone}"]


def _short(model: str) -> str:
    path = Path(model)
    return path.parent.name if path.name == "model" else path.name


def _proof(record: Mapping) -> str:
    proof = record["proof"]
    checked = sum(one["checked"] for one in proof["tensors"])
    ends = f", {' and '.join(proof['equal_logits'])} equal the models" if proof["equal_logits"] else ""
    return f"proven whole: names, shapes and values of all tensors, the arithmetic of {checked}{ends}"


def show_merges(run: Run) -> None:
    """Print the folder of each merge."""
    for name in run.recipe.merges:
        Console().print(run.folder.output("merge", "model", name), soft_wrap=True, markup=False, highlight=False)
