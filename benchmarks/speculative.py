"""Pruned models as drafts of SmolLM2-135M-Instruct: expected and counted acceptance, predicted and measured speed-up.

usage: python benchmarks/speculative.py [DRAFT_FOLDER ...] [--blocks 27 24 15] [--prompts 16] [--timed_prompts 6] [...]

Without folders the dense model is pruned to each number of blocks first, by the block scores of starter rows, and not
trained. Prompts are starter rows, drawn at random. Prints a Markdown table; one text at a time, float32.
"""

import argparse
import json
import tempfile
from pathlib import Path

from datasets import Dataset

import trl_prune
from trl_prune.checkpoints import load_model, load_tokenizer, locate
from trl_prune.data.generation.decoding import end_ids
from trl_prune.data.starter import starter_rows
from trl_prune.evaluation.speculative.measurement import continue_prompts, measure_speculation
from trl_prune.evaluation.speculative.summary import acceptance_summary, speed_summary
from trl_prune.recipe import SpeculateSection
from trl_prune.reporting.speculation import HEADINGS, batch_rows, capability_rows, table_rows
from trl_prune.runs.speculation import draw_prompts, speculative_settings
from trl_prune.smollm2 import smollm2


def arguments():
    """Return the parsed arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("drafts", nargs="*", help="draft checkpoints; pruned here if left out")
    parser.add_argument("--model", help="the dense model; SmolLM2-135M-Instruct if left out")
    parser.add_argument("--blocks", type=int, nargs="+", default=[27, 24, 15])
    parser.add_argument("--draft_lengths", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--timed_prompts", type=int, default=6)
    parser.add_argument("--max_new_tokens", type=int, default=64)
    parser.add_argument("--greedy", action="store_true", help="leave sampling out")
    parser.add_argument("--output", help="a JSON file for all figures")
    return parser.parse_args()


def pruned(source, blocks, rows, folder):
    """Return checkpoints with so many blocks, by name."""
    scores = trl_prune.score(source, rows, samples=64)
    return {
        f"{count} blocks": trl_prune.prune(
            source, folder / str(count), sizes={"num_hidden_layers": count}, scores=scores
        )
        for count in blocks
    }


def main():
    """Print the tables."""
    args = arguments()
    source = locate(args.model) if args.model else smollm2()
    rows, tokenizer = Dataset.from_list(starter_rows()), load_tokenizer(source)
    with tempfile.TemporaryDirectory() as temporary:
        drafts = {Path(path).name: locate(path) for path in args.drafts}
        drafts = drafts or pruned(source, args.blocks, rows, Path(temporary))
        keys = ("draft_lengths", "batch_sizes", "prompts", "timed_prompts", "max_new_tokens")
        section = SpeculateSection(sampled=not args.greedy, **{key: getattr(args, key) for key in keys})
        target = load_model(source, "float32")
        settings = speculative_settings(section, 0, end_ids(target.generation_config, tokenizer))
        texts = continue_prompts(target, draw_prompts(rows, tokenizer, args.prompts, 0, None, {}), settings)
        found = {}
        for name, folder in drafts.items():
            one = measure_speculation(target, load_model(folder, "float32"), texts, settings)
            summary = {"acceptance": acceptance_summary(one), "speed": speed_summary(one)}
            found[name] = json.loads(json.dumps(summary))
            print(f"{name}: {' '.join(found[name]['speed']['warnings'])}", flush=True)
    if args.output:
        Path(args.output).write_text(json.dumps(found, indent=1))
    print_table(HEADINGS, table_rows(found))
    print_table(("draft", "batch", "draft cost", "verifying", "best length", "predicted"), batch_rows(found))
    print_table(("capability", "tokens", *found), capability_rows(found))


def print_table(headings, rows):
    """Print a Markdown table."""
    print()
    for row in (headings, ["---"] * len(headings), *rows):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
