"""Model families as data: one row says all that surgery, importance and search need to know of a model type."""

import difflib
from dataclasses import dataclass

from trl_prune.errors import InputError


@dataclass(frozen=True)
class Family:
    """How a model type names its parts in a checkpoint.

    Attributes:
        blocks: the prefix of the decoder blocks' tensors, before the block's number.
        per_layer: config keys that hold one entry per decoder block, sliced with the blocks.
    """

    blocks: str = "model.layers"
    per_layer: tuple[str, ...] = ("layer_types",)


LLAMA = Family()
SMOLLM3 = Family(per_layer=("layer_types", "no_rope_layers"))
GPT2 = Family(blocks="transformer.h", per_layer=())
GPT_NEOX = Family(blocks="gpt_neox.layers", per_layer=())
OPT = Family(blocks="model.decoder.layers", per_layer=())

LLAMA_SHAPED = (
    "arcee", "cohere", "cohere2", "ernie4_5", "exaone4", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "granite",
    "helium", "llama", "ministral", "mistral", "olmo", "olmo2", "olmo3", "phi", "phi3", "qwen2", "qwen3", "seed_oss",
    "stablelm", "starcoder2",
)  # fmt: skip
FAMILIES: dict[str, Family] = dict.fromkeys(LLAMA_SHAPED, LLAMA) | {
    "gpt2": GPT2,
    "gpt_neox": GPT_NEOX,
    "opt": OPT,
    "smollm3": SMOLLM3,
}


def family_of(model_type: str) -> Family:
    """Return the row of a model type.

    Raises:
        InputError: the type has no row.
    """
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    close = difflib.get_close_matches(model_type, FAMILIES, n=1)
    hint = f" (the nearest row is {close[0]!r})" if close else ""
    raise InputError(
        f"model type {model_type!r} has no row in trl_prune/pruning/families.py{hint}; "
        f"rows: {', '.join(sorted(FAMILIES))}"
    )
