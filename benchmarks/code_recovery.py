"""How much of its code a pruned model recovers from code that the dense model wrote itself.

    python benchmarks/code_recovery.py --data DATA --output OUT --model QWEN [--layers 20] [--functions 640]
    trl-prune run OUT/recipe.yaml

The first command takes the functions of Python's standard library and of the installed packages sympy and networkx,
as far as their docstring, lets the dense model finish each one greedily, and writes the finished ones as rows, each a
prompt and a completion as HumanEval asks for them; no problem of HumanEval is among them. Killed, it resumes. The
second prunes, recovers and evaluates on HumanEval (DATA/eval/humaneval.jsonl) and on paragraphs of WikiText.
"""

import argparse
import ast
import json
import random
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path

import networkx
import sympy
import yaml
from self_distillation import CODE, HELD_OUT_TEXTS, write_code_task, write_paragraphs

from trl_prune.checkpoints import load_model, load_tokenizer
from trl_prune.data.generation.generator import AnswerGenerator
from trl_prune.data.generation.prompts import Prompt
from trl_prune.data.generation.sampling import Sampling
from trl_prune.data.generation.transformers_engine import TransformersEngine
from trl_prune.data.teacher import LazyTeacher


LIBRARIES = (Path(sysconfig.get_path("stdlib")), Path(sympy.__file__).parent, Path(networkx.__file__).parent)
DOCSTRING = range(60, 500)  # characters
PROMPT_TOKENS, NEW_TOKENS, BATCH = 180, 128, 32
ENDS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint", "\n@", "\n```")  # those of the task
ARGS = {
    "per_device_train_batch_size": 8,
    "max_length": 384,
    "gradient_checkpointing": False,
    "model_init_kwargs": {"attn_implementation": "eager"},
}


def library_functions() -> Iterator[str]:
    """Yield the functions of the libraries up to the end of their docstring."""
    for library in LIBRARIES:
        for path in sorted(library.rglob("*.py")):
            if not {"site-packages", "test", "tests", "idlelib"} & set(path.relative_to(library).parts):
                yield from _functions(path.read_text(encoding="utf-8", errors="ignore"))


def _functions(source: str) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in tree.body:
        documented = isinstance(node, ast.FunctionDef) and not node.decorator_list and len(node.body) > 1
        docstring = ast.get_docstring(node) if documented else None
        if docstring and len(docstring) in DOCSTRING and '"""' not in docstring and "\\" not in docstring:
            lines = textwrap.indent(f'"""{docstring}\n"""', "    ")
            yield f"def {node.name}({ast.unparse(node.args)}):\n{lines}\n"


def finished_functions(options: argparse.Namespace) -> list[dict[str, str]]:
    """Return the functions that the dense model finished, as rows."""
    tokenizer = load_tokenizer(options.model)
    functions = sorted(set(library_functions()))
    random.Random(0).shuffle(functions)
    ids = [tokenizer(function)["input_ids"] for function in functions]
    short = [pair for pair in zip(functions, ids, strict=True) if len(pair[1]) <= PROMPT_TOKENS][: options.functions]
    prompts = [Prompt(ids, [], expected_new_tokens=NEW_TOKENS // 2) for _, ids in short]
    teacher = LazyTeacher(
        lambda: load_model(Path(options.model), "auto"), tokenizer, str(options.model), folder=Path(options.model)
    )
    engine = TransformersEngine(teacher)
    generator = AnswerGenerator(engine, tokenizer, options.output / "answers")
    answers = generator.answers(prompts, Sampling(max_new_tokens=NEW_TOKENS, batch_size=BATCH))
    rows = []
    for (function, _), answer in zip(short, answers, strict=True):
        completion, ended = until_end(answer.text)
        if (ended or answer.finished) and completion.strip():
            rows.append({"prompt": function, "completion": completion})
    return rows


def until_end(text: str) -> tuple[str, bool]:
    """Return what stands before the first end of a function, and whether there is one."""
    ends = [position for end in ENDS if (position := text.find(end)) >= 0]
    return (text[: min(ends)], True) if ends else (text, False)


def recipe(options: argparse.Namespace) -> dict:
    """Return the recipe."""
    output = options.output
    measured = {"as_repaired": True, "texts": 16} if options.as_repaired else {}
    return {
        "model": options.model,
        "dataset": {"path": str(output / "rows.jsonl")},
        "output": str(output / "run"),
        "score": {"samples": 128},
        "prune": {"by": options.by, "target": {"layers": options.layers}} | measured,
        "recover": {
            "sft": {"method": "auto", "minutes": options.minutes, "args": ARGS},
            "kd": {
                "method": "kd",
                "data": "references",
                "peft": {"r": 64, "lora_alpha": 128},
                "minutes": options.minutes,
                "args": ARGS
                | {"learning_rate": 1e-3, "lr_scheduler_type": "warmup_stable_decay", "warmup_steps": 0.05},
            },
        },
        "evaluate": {
            "tasks": [f"recovery_{CODE}"],
            "include_path": [str(output / "tasks")],
            "confirm_run_unsafe_code": True,
            "apply_chat_template": False,
            "held_out": {"path": str(output / "held_out.jsonl")},
            "questions": [],
            "batch_size": 32,
            "speed_seconds": 0,
        },
    }


def main() -> None:
    """Write rows, task and recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--by", default="block_influence")
    parser.add_argument("--as-repaired", action="store_true", help="measure `--by kl` behind linear maps, on 16 rows")
    parser.add_argument("--functions", type=int, default=640, help="functions that the dense model finishes")
    parser.add_argument("--problems", type=int, default=60, help="problems of HumanEval")
    parser.add_argument("--minutes", type=float, default=60)
    options = parser.parse_args()
    options.output = options.output.resolve()
    (options.output / "tasks").mkdir(parents=True, exist_ok=True)
    write_code_task(options.data, options.output / "tasks", options.problems)
    write_paragraphs(options.data / "eval" / "wikitext2.txt", options.output / "held_out.jsonl", HELD_OUT_TEXTS)
    rows = finished_functions(options)
    (options.output / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (options.output / "recipe.yaml").write_text(yaml.safe_dump(recipe(options), sort_keys=False))
    print(f"{len(rows)} of {options.functions} functions were finished within {NEW_TOKENS} tokens")


if __name__ == "__main__":
    main()
