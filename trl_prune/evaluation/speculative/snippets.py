"""How the draft is used: by transformers, and by vLLM."""

import json
import shlex


TRANSFORMERS = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({target!r})
model = AutoModelForCausalLM.from_pretrained({target!r}, dtype="auto")
draft = AutoModelForCausalLM.from_pretrained({draft!r}, dtype="auto")
# By default drafts have 20 tokens, cut where the draft is unsure.
draft.generation_config.num_assistant_tokens = {length}
draft.generation_config.num_assistant_tokens_schedule = "constant"
draft.generation_config.assistant_confidence_threshold = 0.0
inputs = tokenizer("Why does ice float on water?", return_tensors="pt")
output = model.generate(**inputs, assistant_model=draft, do_sample=False, max_new_tokens=64)
print(tokenizer.decode(output[0], skip_special_tokens=True))
"""


def transformers_snippet(target: str, draft: str, draft_length: int) -> str:
    """Return a script that decodes with the draft, one text at a time."""
    return TRANSFORMERS.format(target=target, draft=draft, length=draft_length)


def vllm_snippet(target: str, draft: str, draft_length: int) -> str:
    """Return the command that serves the target with the draft, in batches; it was not run here."""
    config = {"method": "draft_model", "model": draft, "num_speculative_tokens": draft_length}
    return f"vllm serve {shlex.quote(target)} --speculative-config {shlex.quote(json.dumps(config))}"
