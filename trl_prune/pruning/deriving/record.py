"""Derive and prove a row for every decoder type of the installed transformers, and write `derived.json`.

Run it as `python -m trl_prune.pruning.deriving.record [TYPE ...]`, after an update of transformers; minutes.
"""

import json
import logging
import sys
from importlib.metadata import version
from pathlib import Path

from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
)
from transformers.utils.logging import disable_progress_bar

from trl_prune.errors import first_line
from trl_prune.pruning import families
from trl_prune.pruning.deriving.admission import derive_and_prove
from trl_prune.pruning.families import FAMILIES, stored_row


DERIVED = Path(families.__file__).with_name("derived.json")
# Parts of larger models that AutoModelForCausalLM lists, encoders, and decoders that read another model's states.
PARTS = (
    "bert-generation", "cohere_compass_text", "gemma4_assistant", "gemma4_unified_assistant", "moshi", "musicgen",
    "musicgen_melody", "trocr",
)  # fmt: skip
# Why a type is refused, in words, where the error of its derivation or proof does not say it.
REASONS = {
    "blt": "it has several stacks of blocks, over bytes and over patches",
    "cohere_compass_text": "it is an encoder",
    "emu3": "transformers cannot build its image tokeniser from a tiny config",
    "gemma3n": "its vision tower needs the package timm; gemma3n_text can be cut",
    "gemma4_assistant": "it runs on another model's keys and values only",
    "gemma4_unified_assistant": "it runs on another model's keys and values only",
    "llama4": "its class does not run on text alone in this version of transformers; llama4_text can be cut",
    "glm4v_moe": "the sections of its position embedding are not those of a tiny model",
    "kimi_vl": "this version of transformers cannot build it from its config",
    "hrm_text": "its blocks are two stacks that run in turn",
    "inkling2_loop_text": "its blocks are counted by names in two places, and some run several times",
    "inkling2_text": "its blocks are counted by names in two places",
}


def decoder_types() -> list[str]:
    """Return the decoder-only types that AutoModelForCausalLM loads, each by the name that its config has."""
    others = {
        **MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        **MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        **MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
    }
    names = [name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name not in others and name not in PARTS]
    return sorted(name for name in names if CONFIG_MAPPING[name].model_type == name)


def multimodal_types() -> list[str]:
    """Return the types that only AutoModelForImageTextToText loads."""
    return sorted(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.keys() - MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys())


def main(names: list[str]) -> None:
    """Derive and prove the named types, or all, and write what came of it."""
    logging.disable(logging.CRITICAL)
    disable_progress_bar()
    record = json.loads(DERIVED.read_text())
    record["transformers"] = version("transformers")
    record["decoders"] = decoder_types()
    record["refused"] |= {name: REASONS[name] for name in PARTS if name in REASONS}
    for name in names or decoder_types() + multimodal_types():
        for part in record.values():
            if isinstance(part, dict):
                part.pop(name, None)
        _record(name, record)
        DERIVED.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def _record(name: str, record: dict) -> None:
    """Add what can be derived and proven of a type to the record."""
    try:
        row, proven = derive_and_prove(name)
    except Exception as error:  # each model class raises errors of its own
        record["refused"][name] = REASONS.get(name) or f"{type(error).__name__}: {first_line(error)}"
        sys.stderr.write(f"{name}: {record['refused'][name]}\n")
        return
    record["proven"][name] = proven
    if name not in FAMILIES:
        record["rows"][name] = stored_row(row)


if __name__ == "__main__":
    main(sys.argv[1:])
