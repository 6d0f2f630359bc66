"""Which model types can be cut along which axes, and why others cannot: what `trl-prune models` prints."""

from collections.abc import Iterable
from dataclasses import dataclass

from trl_prune.pruning.families import AXES, FAMILIES, HEADS, HIDDEN, LAYERS, NEURONS, derived, derived_rows


@dataclass(frozen=True)
class Support:
    """What can be cut of a model type.

    Attributes:
        model_type: transformers' name of the type.
        source: `table`, `derived` or `refused`.
        axes: the axes that can be cut; none of a type that is refused.
        note: why it is refused, or that not every choice of blocks can be expressed.
    """

    model_type: str
    source: str
    axes: tuple[str, ...]
    note: str = ""


def supported_types() -> list[Support]:
    """Return every decoder type that was looked at, by name."""
    rows = derived_rows() | FAMILIES
    some = {name for name, proof in derived()["proven"].items() if proof["depth"] == "some"}
    types = [
        Support(
            name,
            "table" if name in FAMILIES else "derived",
            tuple(axis for axis in AXES if axis in row.axes),
            "its config cannot express every choice of blocks" if name in some else "",
        )
        for name, row in rows.items()
    ]
    types += [Support(name, "refused", (), reason) for name, reason in derived()["refused"].items()]
    return sorted(types, key=lambda support: support.model_type)


def figures() -> dict[str, tuple[int, int]]:
    """Return for blocks, hidden channels, neurons and heads how many decoder types can be cut, and of how many.

    The types are the decoders that transformers' AutoModelForCausalLM loads; those that only run on the states of
    another model, and multimodal types, are not among them.
    """
    rows, decoders = derived_rows() | FAMILIES, derived()["decoders"]
    return {
        axis: (sum(name in rows and axis in rows[name].axes for name in decoders), len(decoders))
        for axis in (LAYERS, HIDDEN, NEURONS, HEADS)
    }


def as_figures() -> str:
    """Return the figures as a Markdown table."""
    shares = [f"{count} of {total} ({count / total:.0%})" for count, total in figures().values()]
    header = " | ".join(f"`{axis}`" for axis in figures())
    return f"| {header} |\n|---|---|---|---|\n| {' | '.join(shares)} |"


def as_lines(types: Iterable[Support]) -> list[str]:
    """Return one line of text for each type: its name, the source, the axes and the note."""
    described = [(support, "; ".join(filter(None, [", ".join(support.axes), support.note]))) for support in types]
    return [f"{support.model_type:28} {support.source:8} {description}" for support, description in described]


def as_table(types: Iterable[Support]) -> str:
    """Return Markdown tables: the types that can be cut, by the set of their axes, and the reasons of the others."""
    by_axes: dict[tuple[str, ...], list[Support]] = {}
    by_reason: dict[str, list[Support]] = {}
    for support in types:
        groups, key = (by_reason, support.note) if support.source == "refused" else (by_axes, support.axes)
        groups.setdefault(key, []).append(support)
    rows = ["| axes | types | |", "|---|---|---|"]
    for axes, members in sorted(by_axes.items(), key=lambda entry: (-len(entry[0]), entry[0])):
        rows.append(f"| {', '.join(f'`{axis}`' for axis in axes)} | {_names(members)} | {len(members)} |")
    rows += ["", "| refused | because |", "|---|---|"]
    for reason, members in sorted(by_reason.items(), key=lambda entry: entry[1][0].model_type):
        rows.append(f"| {_names(members)} | {reason.replace('|', '/')} |")
    return "\n".join(rows)


def _names(members: Iterable[Support]) -> str:
    """Return types' names; * marks a derived row, ~ one whose config cannot express every choice of blocks."""
    return ", ".join(
        f"`{support.model_type}`" + "\\*" * (support.source == "derived") + "~" * bool(support.axes and support.note)
        for support in members
    )
