"""Which rewritten answers to accept: rules measured on pairs whose truth is known but hidden from the rules.

    python benchmarks/acceptance.py --data DATA [--model MODEL] --output OUT [--every 1] [--judged 16]

A pair is a reference and a rewrite of it that agrees or not: answers that the dense model MODEL (default: the
quickstart's) writes with the reference shown, with a wrong one shown, or unaided, labelled by the hidden number,
choice or label; statements of labels; and, for open questions, answers to other questions, references with one
changed word, and paraphrases and contradictions written by hand. The rules see the instruction and the two texts, and
may ask MODEL. Thresholds are chosen by F0.5 on one half of the questions, on which the rule by key facts was
developed too, and measured on the other half: precision counts more, because a row whose rewrite is rejected keeps
its reference.

OUT keeps what the model wrote and its log probabilities: the same command resumes. --every N takes each Nth question;
--judged is how many pairs of each kind and truth all rules, those that ask the model included, are measured on.

DATA holds JSON Lines: {"question", "choices", "answer": index} in arc_easy, arc_challenge, openbookqa and
boolq_closedbook; {"question", "answer"} in gsm8k; {"instruction", "input", "output"} in roleplay_instructions.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from acceptance_candidates import Pair, candidates, labelled_pairs
from acceptance_questions import KINDS, questions
from acceptance_rules import (
    COMBINED,
    RULES,
    Judge,
    combined,
    fitted_threshold,
    is_held_out,
    lexical,
    model_scores,
    precision_recall,
)

from trl_prune.checkpoints import load_model, load_tokenizer, locate
from trl_prune.smollm2 import smollm2


def main() -> None:
    """Write the candidates, ask the model, and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--judged", type=int, default=16)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    folder = locate(args.model) if args.model else smollm2()
    model, tokenizer = load_model(folder, args.dtype), load_tokenizer(folder)
    asked = questions(args.data)[:: args.every]
    pairs = labelled_pairs(asked, candidates(asked, model, tokenizer, args.output / "candidates.jsonl"))
    judged = balanced(pairs, args.judged)
    scores = model_scores(judged, Judge(model, tokenizer), args.output / "log_probs.jsonl")
    print_rules(judged, scores)
    print_key_facts([pair for pair in pairs if is_held_out(pair)])


def balanced(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """Return at most `count` pairs of each kind with the same truth; the pairs are in random order."""
    taken, chosen = Counter(), []
    for pair in pairs:
        taken[pair.kind, pair.agrees] += 1
        if taken[pair.kind, pair.agrees] <= count:
            chosen.append(pair)
    return chosen


def print_rules(pairs: Sequence[Pair], scores: Sequence[dict[str, float]]) -> None:
    """Print precision, recall and F0.5 of each rule on the pairs held out, and F0.5 by kind."""
    columns = {name: [score(*each) for each in zip(pairs, scores, strict=True)] for name, score in RULES.items()}
    columns |= {f"{left} {how} {right}": combined(columns[left], how, columns[right]) for left, how, right in COMBINED}
    held_out = [pair for pair in pairs if is_held_out(pair)]
    print(f"\nOn {len(held_out)} pairs held out, {sum(pair.agrees for pair in held_out)} of which agree:\n")
    print(f"| rule | precision | recall | F0.5 | {' | '.join(f'{kind}: F0.5' for kind in KINDS)} |")
    print("|---|" + "---|" * (3 + len(KINDS)))
    for name, values in columns.items():
        threshold = fitted_threshold(pairs, values)
        accepted = [value >= threshold for pair, value in zip(pairs, values, strict=True) if is_held_out(pair)]
        figures = [*figures_of(held_out, accepted), *(figures_of(held_out, accepted, kind)[2] for kind in KINDS)]
        print(f"| {name} | {' | '.join(f'{figure:.2f}' for figure in figures)} |")


def figures_of(pairs: Sequence[Pair], accepted: Sequence[bool], kind: str | None = None) -> tuple[float, float, float]:
    """Return precision, recall and F0.5 of acceptance on the pairs of one kind, by default on all."""
    chosen = [(pair.agrees, accept) for pair, accept in zip(pairs, accepted, strict=True) if kind in (None, pair.kind)]
    return precision_recall(*zip(*chosen, strict=True)) if chosen else (0.0, 0.0, 0.0)


def print_key_facts(pairs: Sequence[Pair]) -> None:
    """Print how many pairs of each kind and origin there are, and how many of them the rule by key facts accepts."""
    accepted = {pair: bool(lexical(pair)) for pair in pairs}
    figures = figures_of(pairs, list(accepted.values()))
    print(
        f"\nKey facts on all {len(pairs)} pairs held out: precision, recall and F0.5", *(f"{f:.3f}" for f in figures)
    )
    print("\n| kind | how the rewrite came about | agrees | pairs | accepted |\n|---|---|---|---|---|")
    for kind, origin, agrees in sorted({(pair.kind, pair.origin, pair.agrees) for pair in pairs}, key=str):
        group = [pair for pair in pairs if (pair.kind, pair.origin, pair.agrees) == (kind, origin, agrees)]
        print(f"| {kind} | {origin} | {agrees} | {len(group)} | {sum(accepted[pair] for pair in group)} |")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
