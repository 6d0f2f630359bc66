"""The dense model's own answers with its log-probabilities: what the lm-eval tasks `fidelity_*` hold a model against.

Sampled at temperature 1, log p_dense(answer) - log p_model(answer) is an unbiased estimate of KL(dense || model) over
whole answers; the greedy answers show how often a model says what the dense one says.
"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.errors import InputError
from trl_prune.evaluation.generation_settings import plain_settings


if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM


def write_fidelity(  # noqa: PLR0913
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    path: Path,
    *,
    max_new_tokens: int,
    seed: int,
    batch_size: int,
    references: Sequence[str | None] | None = None,
) -> None:
    """Write the dense model's sampled and greedy answer to each prompt, for lm-eval's `--metadata` as `fidelity_file`.

    A line of JSON per prompt: `{context, sampled, sampled_log_prob, sampled_tokens, greedy, greedy_log_prob,
    greedy_tokens, greedy_is_own, before_reference, right_answer}`. The log-probabilities, in nats of a whole answer,
    and the tokens they are sums of are lm-eval's, of the answer's text: one that reads back as other tokens than were
    sampled counts as those. `greedy_is_own` is whether lm-eval calls the dense model's greedy answer greedy. Where the
    reference stands in that answer, and is greedy behind the words before it, the last two are those words and it;
    else None. Answers keep the token that ends them.

    What is there already is kept, in whole batches, and continued; it must be of the same model and settings. The file
    is then the same as one written at once.

    Args:
        model: the dense model, in eval mode. Its generation config's penalties and sampling settings are not applied.
        tokenizer: its tokenizer.
        prompts: the contexts as text, with the chat template applied where there is one.
        path: the JSON Lines file; its folder exists.
        max_new_tokens: the most tokens of an answer.
        seed: of the samples.
        batch_size: prompts per batch.
        references: the known final answers, or None for a prompt without one.

    Raises:
        InputError: an empty prompt, one that leaves no room for an answer, or a file of other prompts.
    """
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, device=str(model.device))
    _check_lengths(lm, prompts, max_new_tokens)
    rows = list(zip(prompts, references or [None] * len(prompts), strict=True))
    done = _keep_whole_batches(path, prompts, batch_size)
    with path.open("a", encoding="utf-8") as file, plain_settings(model):
        for start in range(done, len(rows), batch_size):
            with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
                torch.manual_seed(seed + start)
                answers = _answers(lm, rows[start : start + batch_size], max_new_tokens)
            file.write("".join(json.dumps(answer) + "\n" for answer in answers))
            file.flush()


def _check_lengths(lm: "HFLM", prompts: Sequence[str], max_new_tokens: int) -> None:
    for index, prompt in enumerate(prompts):
        if not prompt.strip():
            raise InputError(f"prompt {index} for the fidelity tasks is empty")
        length = len(lm.tok_encode(prompt))
        if length + max_new_tokens > lm.max_length:
            raise InputError(
                f"prompt {index} for the fidelity tasks has {length} tokens; wanted: at most "
                f"{lm.max_length - max_new_tokens}, so that an answer of {max_new_tokens} fits the model's positions"
            )


def _keep_whole_batches(path: Path, prompts: Sequence[str], batch_size: int) -> int:
    """Cut a file after its last whole batch and return how many lines are left."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    complete = [line for line in lines if line.endswith("\n")]
    is_finished = len(complete) == len(prompts)
    kept = complete if is_finished else complete[: len(complete) // batch_size * batch_size]
    if [json.loads(line)["context"] for line in kept] != list(prompts[: len(kept)]):
        raise InputError(f"{path} holds answers to other prompts; delete it to have it written anew")
    if len(kept) < len(lines):
        path.write_text("".join(kept), encoding="utf-8")
    return len(kept)


def _answers(lm: "HFLM", rows: Sequence[tuple[str, str | None]], max_new_tokens: int) -> list[dict]:
    contexts = [context for context, _ in rows]
    answers = [{"context": context} for context in contexts]
    for name, do_sample in (("sampled", True), ("greedy", False)):
        texts = _generate(lm, contexts, max_new_tokens, do_sample)
        for answer, text, score in zip(answers, texts, _score(lm, contexts, texts), strict=True):
            log_prob, tokens, is_greedy = score
            answer |= {name: text, f"{name}_log_prob": log_prob, f"{name}_tokens": tokens}
            answer |= {} if do_sample else {"greedy_is_own": is_greedy}
    return [
        answer | _right_answer(lm, answer, reference) for answer, (_, reference) in zip(answers, rows, strict=True)
    ]


def _right_answer(lm: "HFLM", answer: dict, reference: str | None) -> dict[str, str | None]:
    found = (
        re.search(rf"\s?(?<!\w){re.escape(reference)}(?!\w)", answer["greedy"], re.IGNORECASE) if reference else None
    )
    if found:
        before = answer["greedy"][: found.start()]
        ((_, _, is_greedy),) = _score(lm, [answer["context"] + before], [found.group()])
        if is_greedy:
            return {"before_reference": before, "right_answer": found.group()}
    return {"before_reference": None, "right_answer": None}


@torch.inference_mode()
def _generate(lm: "HFLM", contexts: Sequence[str], max_new_tokens: int, do_sample: bool) -> list[str]:
    """Return the answers with the token that ends them, sampled from the whole distribution or greedy."""
    # transformers' own default of top_k is 50.
    sampling = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0} if do_sample else {"do_sample": False}
    encoded = [lm.tok_encode(context) for context in contexts]
    longest = max(map(len, encoded))
    pad, ends = lm.tokenizer.pad_token_id, _end_ids(lm)
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in encoded], device=lm.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in encoded], device=lm.device)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, eos_token_id=sorted(ends) or None, pad_token_id=pad, **sampling
    )
    generated = lm.model.generate(ids, attention_mask=mask, generation_config=config)[:, longest:].tolist()
    return [_answer_text(lm, prompt, row, ends) for prompt, row in zip(encoded, generated, strict=True)]


def _answer_text(lm: "HFLM", prompt: list[int], generated: list[int], ends: set[int]) -> str:
    ids = generated[: next((index + 1 for index, token in enumerate(generated) if token in ends), len(generated))]
    # Decoded behind the prompt: SentencePiece tokenizers drop the space before a text's first word.
    behind = len(lm.tok_decode(prompt, skip_special_tokens=False))
    return lm.tok_decode(prompt + ids, skip_special_tokens=False)[behind:]


def _end_ids(lm: "HFLM") -> set[int]:
    configured = lm.model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return {index for index in [*ids, lm.tokenizer.eos_token_id] if index is not None}


def _score(lm: "HFLM", contexts: Sequence[str], answers: Sequence[str]) -> list[tuple[float, int, bool]]:
    """Return each answer's log-probability, its tokens and whether each is the likeliest, all as lm-eval has them."""
    # Unlike `loglikelihood`, this leaves white space at a context's end to the context, as the tasks do.
    requests = []
    for context, answer in zip(contexts, answers, strict=True):
        ids = lm.tok_encode(context)
        requests.append(((context, answer), ids, lm.tok_encode(context + answer)[len(ids) :]))
    scores = lm._loglikelihood_tokens(requests, disable_tqdm=True)
    if not all(math.isfinite(log_prob) for log_prob, _ in scores):
        raise InputError("the dense model gives its own answers a log-probability that is not finite")
    return [
        (log_prob, len(answer_ids), bool(is_greedy))
        for (log_prob, is_greedy), (_, _, answer_ids) in zip(scores, requests, strict=True)
    ]
