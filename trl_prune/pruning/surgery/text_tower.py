"""The text tower of a multimodal checkpoint as a causal LM of its own: its config and the names of its tensors."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from trl_prune.errors import InputError
from trl_prune.pruning.families import family_of
from trl_prune.pruning.surgery.cut import Cut, match_block, meta_model


LM_HEAD = "lm_head.weight"
# Multimodal types whose head is not that of the text tower's own causal LM.
OTHER_LOGITS = {"cohere2_vision": "it does not scale its logits, as cohere2 does"}
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# Files of processors of images, video and sound; the tokenizer's stay.
PROCESSOR_FILES = ("*processor*.json",)


def text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the config of a multimodal model's text tower, complete for a model of its own.

    Raises:
        InputError: there are no other towers, the text tower's type has no causal LM, or the weights are quantised.
    """
    text = config.get_text_config()
    if text is config:
        raise InputError(f"a {config.model_type} model is text only already")
    if text.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise InputError(
            f"transformers has no causal LM for {text.model_type}, the text tower of {config.model_type}: cut the "
            f"whole checkpoint, and give it text alone"
        )
    if config.model_type in OTHER_LOGITS:
        raise InputError(f"the text tower of {config.model_type} has other logits: {OTHER_LOGITS[config.model_type]}")
    if getattr(config, "quantization_config", None) is not None:
        raise InputError(
            "the text tower of a quantised checkpoint cannot be taken out; start from the unquantised one"
        )
    own = {name: getattr(config, name, None) for name in TOKEN_IDS if getattr(text, name, None) is None}
    values = text.to_dict() | {name: value for name, value in own.items() if value is not None}
    changes = {
        "architectures": [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[text.model_type]],
        "dtype": text.dtype or config.dtype,
    }
    return type(text).from_dict(values | changes)


def check_own_weights(config: PreTrainedConfig) -> None:
    """Check that no other tower of a multimodal model shares a weight with its text tower, such as its head.

    Raises:
        InputError: one does.
    """
    model = meta_model(config)
    text = {id(module) for module in model.get_decoder().modules()} | {id(model.get_output_embeddings())}
    for pair in model.all_tied_weights_keys.items():
        inside = [id(model.get_submodule(name.rpartition(".")[0])) in text for name in pair]
        if any(inside) and not all(inside):
            raise InputError(
                f"{config.model_type}'s text tower shares {pair[inside.index(True)]} with {pair[inside.index(False)]} "
                f"outside it, so that it cannot be cut or taken out by itself"
            )


@dataclass(frozen=True)
class TextNames:
    """Maps tensor names of a multimodal checkpoint to those of its text tower as a model of its own.

    Attributes:
        cut: the cut of the multimodal checkpoint.
        stem: the prefix of the text tower's names in it.
        blocks: the prefix of the blocks' names in the text model.
    """

    cut: Cut
    stem: str
    blocks: str

    @classmethod
    def of(cls, names: Iterable[str], cut: Cut, config: PreTrainedConfig) -> "TextNames":
        """Find where the text tower is.

        Args:
            names: the multimodal checkpoint's tensor names.
            cut: its cut.
            config: its config.

        Raises:
            InputError: the text tower is not a causal LM, or its type has no row.
        """
        match = next(match for match in (match_block(name, cut.family) for name in names) if match)
        return cls(cut, match["blocks"].rpartition(".")[0], family_of(text_config(config).model_type).blocks_prefix)

    def new_name(self, name: str) -> str | None:
        """Return a tensor's name in the cut text model, or None if it is removed or belongs to another tower."""
        new_name = self.cut.new_name(name)
        if new_name is None or re.search(rf"(^|\.){re.escape(LM_HEAD)}$", name):
            return new_name and LM_HEAD
        match = match_block(new_name, self.cut.family)
        if match is not None:
            return f"{self.blocks}.{match['index']}.{new_name[match.end() :]}"
        inside = name.removeprefix(f"{self.stem}.")
        return None if inside == name else f"{self.blocks.rpartition('.')[0]}.{inside}"


def remove_processors(folder: Path) -> None:
    """Remove the files of processors that a text model does not have."""
    for pattern in PROCESSOR_FILES:
        for path in folder.glob(pattern):
            path.unlink()
