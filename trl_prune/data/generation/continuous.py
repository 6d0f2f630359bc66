"""Generate with transformers' continuous batching: a prompt joins as soon as another's answer is finished."""

import math
from collections.abc import Iterator, Mapping, Sequence

from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel


# Tokens of one step on a CPU; on a GPU transformers sizes step and cache by the free memory.
CPU_STEP_TOKENS = 1024


def generate_continuously(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    eos_ids: set[int],
    config: ContinuousBatchingConfig,
) -> Iterator[tuple[int, list[int]]]:
    """Yield the index of each prompt with its greedily generated ids, in the order in which they are finished.

    Raises:
        RuntimeError: the model failed on a prompt.
    """
    eos = sorted(eos_ids) or -1  # an empty list would mean the ids of the model's config
    generation = GenerationConfig(do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=eos)
    manager = model.init_continuous_batching(generation, config)
    manager.warmup()
    manager.start()
    try:
        names = manager.add_requests(list(prompts), max_new_tokens)
        indices = {name: index for index, name in enumerate(names)}
        while indices:
            result = manager.get_result(timeout=1)
            if result is not None and result.error is not None:
                raise RuntimeError(f"continuous batching failed: {result.error}")
            if result is not None and result.is_finished():
                yield indices.pop(result.request_id), result.generated_tokens
            elif not manager.is_running():
                raise RuntimeError(f"continuous batching ended with {len(indices)} answers missing")
    finally:
        manager.stop(hard_stop=True)
        manager.destroy()


def continuous_batching_config(
    model: PreTrainedModel, longest: int, batch_size: int, options: Mapping[str, object]
) -> ContinuousBatchingConfig:
    """Return the settings of continuous batching.

    Args:
        model: on its device. On a CPU transformers would reserve nearly all of the main memory by default, so there
            the cache holds `batch_size` of the longest sequences.
        longest: tokens of the longest prompt and answer.
        batch_size: sequences that are generated at once on a CPU.
        options: arguments of the config that the user set.
    """
    sizes = {}
    if model.device.type == "cpu":
        pages = math.ceil(longest / options.get("page_size", ContinuousBatchingConfig.page_size))
        sizes = {"num_blocks": batch_size * pages, "max_batch_tokens": CPU_STEP_TOKENS}
    return ContinuousBatchingConfig(**sizes | dict(options))
