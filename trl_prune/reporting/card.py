"""The card of a pruned checkpoint: what it was cut from, what went, and the picture of why."""

from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import ModelCardData, metadata_load

from trl_prune.checkpoints import Provenance, read_provenance, write_text
from trl_prune.pruning.keep import kept_sizes


CARD, PICTURE = "README.md", "importance.png"
TEXT = """---
{metadata}
---

# {name}, pruned

Cut from {source} with trl-prune; an ordinary checkpoint of the same architecture, which loads without any code of its
own.

| | before this cut | after |
|---|---|---|
{rows}

{told}

Which units stayed, counted in the dense model, and every change to kept weights are in `trl_prune.json`. A pruned
model has lost quality until it is trained again: recover it before use.
"""


def write_card(folder: Path, source: Path, sizes: Mapping[str, tuple[float, float]], chosen_by: str) -> None:
    """Write the card beside a pruned checkpoint.

    Args:
        folder: the pruned checkpoint.
        source: the one it was cut from, for its licence.
        sizes: rows of the table: a name with the dense and the pruned model's number.
        chosen_by: a sentence on how the units were chosen.
    """
    write_text(folder / CARD, card_text(read_provenance(folder), _licence(source), sizes, _told(folder, chosen_by)))


def card_text(
    provenance: Provenance, licence: dict[str, str], sizes: Mapping[str, tuple[float, float]], told: str
) -> str:
    """Return the card."""
    path = str(provenance.dense["path"])
    on_hub = not Path(path).is_absolute()
    name = path if on_hub else Path(path).name  # where it lies on the machine that cut it is nobody's business
    metadata = ModelCardData(
        base_model=name if on_hub else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["trl-prune", "pruned"],
        ignore_metadata_errors=True,
        **licence,
    )
    rows = "\n".join(f"| {row} | {dense:,.0f} | {pruned:,.0f} |" for row, (dense, pruned) in sizes.items())
    source = f"[{name}](https://huggingface.co/{name})" if on_hub else name
    return TEXT.format(metadata=metadata.to_yaml(), name=name, source=source, rows=rows, told=told)


def _licence(source: Path) -> dict[str, str]:
    card = source / CARD
    told = (metadata_load(card) or {}) if card.is_file() else {}
    return {key: told[key] for key in ("license", "license_name", "license_link") if key in told}


def _told(folder: Path, chosen_by: str) -> str:
    provenance = read_provenance(folder)
    sizes = kept_sizes(provenance.keep)
    lines = [f"Kept: {', '.join(f'{axis} {size}' for axis, size in sizes.items())}. {chosen_by}"]
    lines += [f"Repaired: {edit.get('repair', edit)}." for edit in provenance.edits]
    if (folder / PICTURE).is_file():
        lines.append(f"![What every unit's score was, and where the cut went]({PICTURE})")
    return "\n\n".join(lines)
