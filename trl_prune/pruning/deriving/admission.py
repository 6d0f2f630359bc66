"""Derive and prove the row of a type on a tiny model, for the record or, for a type without one, before a cut."""

from dataclasses import replace

from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from trl_prune.checkpoints import model_class
from trl_prune.errors import InputError, first_line
from trl_prune.pruning.deriving.masking import is_stream_norm
from trl_prune.pruning.deriving.proof import DEPTH_PLANS, ProofError, prove_depth, prove_width
from trl_prune.pruning.deriving.rows import derive_row
from trl_prune.pruning.deriving.tiny import tiny_config, tiny_model
from trl_prune.pruning.deriving.width import width_rows
from trl_prune.pruning.families import FAMILIES, HEADS, HIDDEN, KV_HEADS, Family, derived_rows, register, registered


# A config that is larger when shrunken has not been understood.
LARGEST = 11_000_000


def derive_and_prove(model_type: str, **flags: object) -> tuple[Family, dict]:
    """Return the row of a type and what was proven of it.

    Args:
        model_type: transformers' name of the type.
        flags: entries of its config that the tiny model shall have as well.

    Raises:
        Exception: whatever transformers raises for a type that it cannot build or run, ProofError or InputError.
    """
    import torch

    config = tiny_config(model_type, **flags)
    with torch.device("meta"):
        parameters = sum(weight.numel() for weight in model_class(config).from_config(config).parameters())
    if parameters > LARGEST:
        raise ValueError(f"its tiny config still has {parameters:,} parameters")
    dense = tiny_model(config)
    row = FAMILIES.get(model_type) or derive_row(config, dense, DEPTH_PLANS)
    with registered(model_type, row):
        proof = prove_depth(dense)
    if model_type not in FAMILIES:
        row = _with_width(model_type, config, dense, row)
    return row, {"depth": "any" if not proof.refusals else "some"}


def _with_width(model_type: str, config: PreTrainedConfig, dense: PreTrainedModel, row: Family) -> Family:
    """Return the row with the axes of width that can be proven; the row as it is, where widths cannot be derived."""
    best, most = row, 0
    try:
        for candidate in width_rows(config, row):
            with registered(model_type, candidate):
                failures, scales_embedding = prove_width(dense)
            proven = _proven_row(candidate, failures, scales_embedding, dense)
            if len(proven.axes) > most:
                best, most = proven, len(proven.axes)
            if not failures:
                break
    except Exception:  # each model class raises errors of its own; cuts in depth are proven all the same
        return best
    return best if most > 1 else row


def _proven_row(row: Family, failures: dict[str, str], scales_embedding: bool, dense: PreTrainedModel) -> Family:
    for together in ({HEADS, KV_HEADS}, set() if row.reads_head_dim else {HIDDEN, HEADS, KV_HEADS}):
        if together & failures.keys():
            failures |= dict.fromkeys(row.axes & together, failures[min(together & failures.keys())])
    norms = [module.weight for name, module in dense.named_modules() if is_stream_norm(name, module, row)]
    return replace(
        row,
        unsupported=dict.fromkeys(failures, "the derived row could not be proven for it"),
        scales_embedding=scales_embedding,
        norm_plus_one=bool(norms) and all(not weight.any() for weight in norms),
    )


def admit(config: PreTrainedConfig) -> None:
    """Make a type that has no row known to this process, after deriving one and proving it on a tiny model.

    The tiny model has the settings (flags and names, not sizes) of the config.

    Raises:
        InputError: the row cannot be derived or is wrong.
    """
    if config.model_type in FAMILIES | derived_rows():
        return
    try:
        row, _ = derive_and_prove(config.model_type, **_settings(config))
    except Exception as error:  # each model class raises errors of its own
        kind = "wrong" if isinstance(error, ProofError) else "not found"
        raise InputError(
            f"model type {config.model_type!r} has no row, and one derived now is {kind}: {first_line(error)}"
        ) from error
    register(config.model_type, row)


def _settings(config: PreTrainedConfig) -> dict:
    """Return the flags and names of a config that differ from its type's defaults."""
    default = AutoConfig.for_model(config.model_type).to_dict()
    return {
        key: value
        for key, value in config.to_dict().items()
        if key in default and isinstance(value, bool | str) and value != default[key] and not key.endswith("dtype")
    }
