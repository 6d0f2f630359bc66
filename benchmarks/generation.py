"""Tokens a second of generated answers: our engine against transformers' generate in a loop over the dataset.

usage: python benchmarks/generation.py DATA [ROWS] (DATA: JSON Lines with `question` and `answer`, such as GSM8K's)

SmolLM2-135M-Instruct in float32 rewrites ROWS answers (128 by default), at most 256 new tokens each. The rows are
those of one batch that a run over all of DATA plans: its middle one. Every other one of them is also generated in a
loop over the dataset. Useful tokens are those up to the end-of-sequence one. CPU seconds; the loop runs in two halves,
before and after our engine, because the machine may be busy. Last, the time of a second run over 2,000 rows of which
one changed.
"""

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from transformers import GenerationConfig

from trl_prune.checkpoints import load_model, load_tokenizer
from trl_prune.data.batches import pad
from trl_prune.data.generation.decoding import decode, end_ids
from trl_prune.data.generation.generator import AnswerGenerator
from trl_prune.data.generation.missing import plan_batches
from trl_prune.data.generation.prompts import Prompt, prompt_ids
from trl_prune.data.generation.sampling import Answer, Sampling
from trl_prune.data.generation.store import AnswerStore, answer_key
from trl_prune.data.generation.transformers_engine import TransformersEngine
from trl_prune.data.rewriting.requests import Asking
from trl_prune.data.rewriting.rewrite import all_requests
from trl_prune.data.teacher import LazyTeacher
from trl_prune.smollm2 import smollm2


MAX_NEW_TOKENS, LOOP_BATCH, ROWS, STORED_ROWS = 256, 8, 128, 2000


def read_prompts(data, tokenizer):
    """Return the rewriting prompts of all rows, in their order."""
    items = [json.loads(line) for line in Path(data).read_bytes().splitlines()]
    rows = [{"prompt": item["question"], "completion": item["answer"]} for item in items]
    prompts = []
    for (request,) in all_requests(rows, Asking(answer_type="number")):
        prefill = request.answer_type.prefill
        length = len(tokenizer(request.turn.answer)["input_ids"])
        ids = prompt_ids(tokenizer, request.messages, prefill)
        prompts.append(Prompt(ids, request.messages, prefill, expected_new_tokens=length))
    return prompts


def generate_loop(model, tokenizer, prompts, batch_size):
    """Return the generated ids of each prompt by transformers' generate, in the order given."""
    ends, generated = end_ids(model.generation_config, tokenizer), []
    config = GenerationConfig(
        do_sample=False, max_new_tokens=MAX_NEW_TOKENS, eos_token_id=sorted(ends), pad_token_id=0
    )
    for start in range(0, len(prompts), batch_size):
        batch = pad([prompt.ids for prompt in prompts[start : start + batch_size]], tokenizer, side="left")
        output = model.generate(**batch, generation_config=config)[:, batch["input_ids"].shape[1] :].tolist()
        for row in output:
            end = next((index for index, token in enumerate(row) if token in ends), len(row))
            generated.append(row[: end + 1])
    return generated


def our_batch(model, tokenizer, prompts):
    """Return the generated ids of each prompt by our decode loop, all in one batch."""
    return decode(model, tokenizer, [prompt.ids for prompt in prompts], MAX_NEW_TOKENS)


def cpu_seconds(function, *arguments):
    """Return a function's result and its CPU seconds."""
    start = time.process_time()
    result = function(*arguments)
    return result, time.process_time() - start


@torch.inference_mode()
def limits(model):
    """Return the CPU seconds of reading every weight once, and of one multiplication and addition with many rows."""
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    read = min(cpu_seconds(weights.sum)[1] for _ in range(5))
    rows, matrix = torch.randn(2048, 1536), torch.randn(576, 1536)
    product = min(cpu_seconds(torch.nn.functional.linear, rows, matrix)[1] for _ in range(5))
    return read, product / (rows.numel() * len(matrix))


def compare(model, tokenizer, prompts):
    """Print the table of both methods, and how far ours is from what the machine could do."""
    looped, half = prompts[::2], len(prompts) // 4
    before, seconds_before = cpu_seconds(generate_loop, model, tokenizer, looped[:half], LOOP_BATCH)
    order = plan_batches(prompts, len(prompts))[0]
    generated, seconds = cpu_seconds(our_batch, model, tokenizer, [prompts[index] for index in order])
    after, seconds_after = cpu_seconds(generate_loop, model, tokenizer, looped[half:], LOOP_BATCH)
    loop, loop_seconds = before + after, seconds_before + seconds_after
    ours = [answer for _, answer in sorted(zip(order, generated, strict=True))]
    same = sum(map(list.__eq__, ours[::2], loop)) / len(loop)
    tokens, loop_tokens = sum(map(len, ours)), sum(map(len, loop))
    print("| method | rows | CPU seconds | tokens a second | x | equal answers |\n|---|---|---|---|---|---|")
    rate = loop_tokens / loop_seconds
    print(f"| generate, batches of {LOOP_BATCH} | {len(loop)} | {loop_seconds:.0f} | {rate:.1f} | 1.00 | |")
    print(
        f"| our engine, batches of {len(ours)} | {len(ours)} | {seconds:.0f} | {tokens / seconds:.1f} | "
        f"{tokens / seconds / rate:.2f} | {same:.0%} |"
    )
    read, multiply_add = limits(model)
    steps, passed = max(map(len, ours)), sum(len(prompt.ids) for prompt in prompts)
    weights = sum(parameter.numel() for parameter in model.parameters())
    head = model.get_output_embeddings().weight.numel()
    work = (weights * tokens + (weights - head) * passed) * multiply_add
    print(f"\n{len(prompts)} prompts of {passed} tokens, answers of {tokens}, {steps} steps")
    print(f"reading the weights once a step: {steps * read:.0f} s, {steps * read / seconds:.0%} of our engine's")
    print(f"multiplying each token with each weight once: {work:.0f} s, {work / seconds:.0%} of our engine's")


def rerun_one_changed(model, tokenizer, prompts):
    """Print the wall seconds of a run in which all answers but one are stored."""
    sampling = Sampling(MAX_NEW_TOKENS, ROWS)
    engine = TransformersEngine(LazyTeacher(lambda: model, tokenizer, "smollm2"))
    with tempfile.TemporaryDirectory() as folder:
        store = AnswerStore(Path(folder))
        for batch in plan_batches(prompts, ROWS):
            keys = [answer_key(prompts[index], sampling, engine.fingerprint) for index in batch]
            store.write({key: Answer("The answer is 7. " * 20, True) for key in keys})
        start = time.perf_counter()
        AnswerGenerator(engine, tokenizer, Path(folder)).answers(prompts, sampling)
        stored_seconds = time.perf_counter() - start
        changed = [replace(prompts[0], ids=prompts[0].ids[:-1]), *prompts[1:]]
        start = time.perf_counter()
        AnswerGenerator(engine, tokenizer, Path(folder)).answers(changed, sampling)
        print(
            f"\na second run over {len(prompts)} rows: {stored_seconds:.2f} s; with one row changed: "
            f"{time.perf_counter() - start:.2f} s, its answer included"
        )


def main(data, rows=ROWS):
    """Print both."""
    folder = smollm2()
    model, tokenizer = load_model(folder, "float32").eval(), load_tokenizer(folder)
    for parameter in model.parameters():  # out of the memory-mapped file
        parameter.data = parameter.data.clone()
    prompts = read_prompts(data, tokenizer)
    batches = plan_batches(prompts, int(rows))
    compare(model, tokenizer, [prompts[index] for index in sorted(batches[len(batches) // 2])])
    rerun_one_changed(model, tokenizer, prompts[:STORED_ROWS])


if __name__ == "__main__":
    main(*sys.argv[1:])
