"""Answers by vLLM in this process."""

import gc
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from transformers import GenerationConfig

from trl_prune.checkpoints import load_config
from trl_prune.data.generation.decoding import end_ids
from trl_prune.data.generation.prompts import Prompt
from trl_prune.data.generation.sampling import Answer, Sampling
from trl_prune.data.generation.store import answer_seed
from trl_prune.data.teacher import LazyTeacher
from trl_prune.errors import InputError


if TYPE_CHECKING:
    from vllm import LLM, SamplingParams

# Prompts of one call: the answers of a call are returned, and can be stored, together.
CHUNK = 1024
# Options about memory, devices and speed; all others may change the answers and so belong to the fingerprint.
RESOURCES = {
    "cpu_offload_gb",
    "data_parallel_size",
    "disable_log_stats",
    "distributed_executor_backend",
    "enable_chunked_prefill",
    "enable_prefix_caching",
    "enforce_eager",
    "gpu_memory_utilization",
    "max_model_len",
    "max_num_batched_tokens",
    "max_num_seqs",
    "pipeline_parallel_size",
    "tensor_parallel_size",
}


class VllmEngine:
    """Generates with vLLM, which batches, pages and shares prefixes by itself.

    Sampling settings and penalties of the checkpoint's generation config are not applied, its end-of-sequence ids are.

    Args:
        teacher: the model; its folder is loaded when the first answer is generated.
        options: keyword arguments of `vllm.LLM`.

    Raises:
        InputError: the model has no checkpoint folder.
    """

    def __init__(self, teacher: LazyTeacher, **options: object):
        if teacher.folder is None:
            raise InputError("the vllm engine reads a checkpoint folder, and the dense model is in memory only")
        self.teacher, self.options = teacher, options
        determining = {name: value for name, value in sorted(options.items()) if name not in RESOURCES}
        self.fingerprint = json.dumps(["vllm", teacher.fingerprint, determining], default=str)
        self._llm: LLM | None = None

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[dict[int, Answer]]:
        """Yield the answers of `CHUNK` prompts at a time, by the indices of the prompts.

        Raises:
            InputError: vLLM is not installed.
        """
        for start in range(0, len(prompts), CHUNK):
            chunk = prompts[start : start + CHUNK]
            if self._llm is None:
                self._llm = self._load()
            outputs = self._llm.generate(
                [{"prompt_token_ids": prompt.ids} for prompt in chunk],
                [self._sampling_params(prompt, sampling) for prompt in chunk],
                use_tqdm=False,
            )
            finished = (output.outputs[0] for output in outputs)
            yield {start + row: Answer(one.text, one.finish_reason == "stop") for row, one in enumerate(finished)}

    def close(self) -> None:
        """Free the model's memory."""
        self._llm = None
        gc.collect()

    def _load(self) -> "LLM":
        try:
            from vllm import LLM
        except ImportError as error:
            raise InputError("the vllm engine needs vLLM: install it with `pip install vllm`") from error
        # Otherwise `max_new_tokens` in the checkpoint's generation config would limit ours.
        defaults = {"generation_config": "vllm", "max_model_len": self.teacher.max_model_len}
        return LLM(model=str(self.teacher.folder), **defaults | self.options)

    def _sampling_params(self, prompt: Prompt, sampling: Sampling) -> "SamplingParams":
        from vllm import SamplingParams

        seeded = sampling.temperature > 0
        return SamplingParams(
            temperature=sampling.temperature,
            max_tokens=sampling.max_new_tokens,
            seed=answer_seed(prompt, sampling, self.fingerprint) if seeded else None,
            stop_token_ids=self._end_ids,
        )

    @cached_property
    def _end_ids(self) -> list[int]:
        folder = self.teacher.folder
        if (folder / "generation_config.json").is_file():
            config = GenerationConfig.from_pretrained(folder)
        else:
            config = GenerationConfig.from_model_config(load_config(folder))
        return sorted(end_ids(config, self.teacher.tokenizer))
