"""The model card of a pruned checkpoint: its dense model, the cut, and the figure of the scores."""

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

Pruned from {source} with trl-prune; an ordinary checkpoint of the same architecture that loads without custom code.

| | before this cut | after |
|---|---|---|
{rows}

{details}

The kept units, counted in the dense model, and every change to kept weights are listed in `trl_prune.json`. A pruned
model has lost quality: recover it by training before use.
"""


def write_card(folder: Path, source: Path, sizes: Mapping[str, tuple[float, float]], chosen_by: str) -> None:
    """Write the model card of a pruned checkpoint.

    Args:
        folder: the pruned checkpoint.
        source: the checkpoint that it was pruned from, for the licence.
        sizes: rows of the table: a name with the dense and the pruned model's number.
        chosen_by: a sentence on how the units were chosen.
    """
    details = _details(folder, chosen_by)
    write_text(folder / CARD, card_text(read_provenance(folder), _licence(source), sizes, details))


def card_text(
    provenance: Provenance, licence: dict[str, str], sizes: Mapping[str, tuple[float, float]], details: str
) -> str:
    """Return the text of the model card."""
    path = str(provenance.dense["path"])
    on_hub = not Path(path).is_absolute()
    name = path if on_hub else Path(path).name  # a local path is not published
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
    return TEXT.format(metadata=metadata.to_yaml(), name=name, source=source, rows=rows, details=details)


def _licence(source: Path) -> dict[str, str]:
    card = source / CARD
    metadata = (metadata_load(card) or {}) if card.is_file() else {}
    return {key: metadata[key] for key in ("license", "license_name", "license_link") if key in metadata}


def _details(folder: Path, chosen_by: str) -> str:
    provenance = read_provenance(folder)
    sizes = kept_sizes(provenance.keep)
    lines = [f"Kept: {', '.join(f'{axis} {size}' for axis, size in sizes.items())}. {chosen_by}"]
    lines += [f"Repaired: {edit.get('repair', edit)}." for edit in provenance.edits]
    if (folder / PICTURE).is_file():
        lines.append(f"![Scores of all units, with the cut marked]({PICTURE})")
    return "\n\n".join(lines)
