"""What our evaluation costs beside plain lm-eval, and what a second one costs with a task more.

    python benchmarks/evaluation.py [--limit 40] [--rounds 3] [--batch-size 16] [--chat]

SmolLM2-135M on recovery probes that score given answers and that generate. `lm-eval` is `lm_eval.simple_evaluate` in
this process, on tasks that are loaded already and without its description of the machine; ours asks the same items,
stores the answers in a new file and writes the results. Both are timed in turn. Then a task is added: our evaluation
with the stored answers of the others, against the added task alone. CPU seconds, which other work on the machine
distorts little, stand beside wall times.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from functools import partial
from io import StringIO
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trl_prune.checkpoints import load_model, load_tokenizer
from trl_prune.evaluation.harness import (
    Answers,
    EvaluatedModel,
    EvaluationSettings,
    EvaluationTasks,
    drawn_doc_ids,
    evaluate_model,
    load_tasks,
    write_results,
)
from trl_prune.evaluation.timing import interleaved_seconds, speed_up
from trl_prune.smollm2 import smollm2


@contextmanager
def without_environment_info() -> Iterator[None]:
    """Leave out lm-eval's description of the machine, seconds of `pip list`, which would be counted against it."""
    from lm_eval import evaluator

    described, evaluator.add_env_info = evaluator.add_env_info, lambda _: None
    try:
        yield
    finally:
        evaluator.add_env_info = described


def plain(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tasks: EvaluationTasks, settings: EvaluationSettings
) -> dict:
    """Return lm-eval's own results."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=settings.batch_size, device=str(model.device))
    with without_environment_info(), redirect_stderr(StringIO()):
        return lm_eval.simple_evaluate(
            lm,
            tasks=list(tasks.tasks.values()),
            task_manager=TaskManager(include_defaults=False),
            samples={name: drawn_doc_ids(task, settings.limit, settings.seed) for name, task in tasks.tasks.items()},
            bootstrap_iters=0,
            apply_chat_template=settings.apply_chat_template,
        )


def ours(model: EvaluatedModel, tasks: EvaluationTasks, settings: EvaluationSettings, folder: Path) -> dict:
    """Return our results, written as the `evaluate` stage writes them."""
    results = evaluate_model(model, tasks, settings)
    write_results(folder, results, model, settings, "float32")
    return results


class CpuSeconds:
    """A call that notes its CPU seconds each time."""

    def __init__(self, function: Callable[[], object]):
        self.function = function
        self.noted: list[float] = []

    def __call__(self) -> None:
        """Call the function."""
        start = time.process_time()
        self.function()
        self.noted.append(time.process_time() - start)


def show(label: str, function: Callable[[], object]) -> None:
    """Time one call and print it."""
    call, start = CpuSeconds(function), time.perf_counter()
    call()
    print(f"{label}: {time.perf_counter() - start:.2f} s, {call.noted[0]:.2f} CPU s")


def arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--chat", action="store_true", help="apply the chat template")
    parser.add_argument("--tasks", nargs="+", default=["probe_commonsense", "probe_arithmetic"])
    parser.add_argument("--added", default="probe_category")
    return parser.parse_args()


def main() -> None:
    """Time both and print the figures."""
    args = arguments()
    model, tokenizer = load_model(smollm2(), "float32", "cpu"), load_tokenizer(smollm2())
    settings = EvaluationSettings(args.batch_size, args.chat, args.limit)
    tasks, more, added = (load_tasks(names) for names in (args.tasks, [*args.tasks, args.added], [args.added]))
    with TemporaryDirectory() as name:
        folder, numbers = Path(name), count()

        def named(path: Path) -> EvaluatedModel:
            return EvaluatedModel("SmolLM2-135M", lambda: model, tokenizer, Answers(path))

        def fresh(of: EvaluationTasks) -> dict:
            return ours(named(folder / f"{next(numbers)}.jsonl"), of, settings, folder)

        lm_eval, fresh_ours = (
            CpuSeconds(call) for call in (partial(plain, model, tokenizer, tasks, settings), partial(fresh, tasks))
        )
        wall = interleaved_seconds({"lm-eval": lm_eval, "ours": fresh_ours}, args.rounds)
        print(f"ours takes {speed_up(wall['ours'], wall['lm-eval'])} of the wall time of lm-eval")
        cpu = [call.noted[1:] for call in (fresh_ours, lm_eval)]  # without the warm-up
        print(f"ours takes {speed_up(*cpu)} of the CPU seconds of lm-eval")
        for label, values in (("lm-eval", wall["lm-eval"]), ("ours", wall["ours"]), ("ours, CPU", cpu[0])):
            print(f"{label}: {', '.join(f'{value:.1f}' for value in values)} s")
        stored = partial(ours, named(folder / "0.jsonl"), settings=settings, folder=folder)
        show("again, all stored", partial(stored, tasks))
        show(f"with {args.added}", partial(stored, more))
        show(f"{args.added} alone", partial(fresh, added))


if __name__ == "__main__":
    main()
