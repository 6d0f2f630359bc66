"""The results of a run, read from its folder for figures, tables and pages."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations, zip_longest

import torch
from datasets import Dataset

from trl_prune.data.rewriting.acceptance import ACCEPTED
from trl_prune.data.rewriting.provenance import AnswerRecord, read_records
from trl_prune.data.rewriting.turns import turns
from trl_prune.evaluation.comparison import ComparedModels, silent_tasks
from trl_prune.evaluation.comparison.models import ALL, task_groups
from trl_prune.evaluation.efficiency import Size, Work, count_work
from trl_prune.evaluation.forgetting import Forgetting
from trl_prune.evaluation.recovery import (
    Estimate,
    Recovery,
    Scores,
    TaskScore,
    paired_difference,
    recovery,
    subset,
)
from trl_prune.evaluation.result_files import ModelResults, read_results
from trl_prune.evaluation.speed import Bound, SpeedComparison, speed_bound
from trl_prune.pruning.importance.layers import LayerScores
from trl_prune.pruning.surgery.cut import meta_model
from trl_prune.reporting.speculation import read_speculation, view
from trl_prune.runs.artifacts import TIMING, Result
from trl_prune.runs.context import Run
from trl_prune.runs.evaluation import HELD_OUT_TEXT
from trl_prune.runs.fidelity import FIDELITY
from trl_prune.runs.selected_rows import rows_to_rewrite


# Groups of tasks that the tables separate; groups without tasks are left out.
ALL_TASKS = ALL
TRAINED, HELD_OUT = "capabilities with training rows", "capabilities without training rows"


@dataclass(frozen=True)
class RecoveryRow:
    """One row of the recovery table: a model over a group of tasks."""

    group: str
    model: str
    recovery: Recovery


class RunResults:
    """The results of a run; what the run has not done yet is empty or None."""

    def __init__(self, run: Run):
        self.run = run
        self.folder = run.folder

    @cached_property
    def model_results(self) -> dict[str, ModelResults]:
        """What the evaluated models scored and answered, by model."""
        names = [name for name in self.run.recipe.evaluated if self.folder.result("evaluate", name)]
        return {name: read_results(self.folder.stage_dir("evaluate", name), name) for name in names}

    @cached_property
    def compared(self) -> ComparedModels | None:
        """The evaluated models beside the dense one; None as long as there is no other."""
        results = self.model_results
        if "dense" not in results or len(results) == 1:
            return None
        pruned = "pruned" if "pruned" in results else None
        seed = self.run.recipe.seed
        return ComparedModels(list(results.values()), "dense", pruned, allow_differences=True, seed=seed)

    @property
    def scores(self) -> dict[str, dict[str, TaskScore]]:
        """The scores with their items, by model and task; of all models the same items in the same order."""
        if self.compared is None:
            return {name: results.scores for name, results in self.model_results.items()}
        return {name: self.compared.scores[name] for name in self.model_results}

    @cached_property
    def marks(self) -> dict[str, str]:
        """The tasks that say nothing, with the reason; they are left out of means."""
        return self.compared.marks if self.compared else silent_tasks(self.scores.get("dense", {}), {})

    @property
    def forgetting(self) -> dict[str, Forgetting]:
        """The comparisons with the dense model on held-out text, by model; empty without held-out text."""
        metrics = {name: self.folder.require("evaluate", name).metrics.get(HELD_OUT_TEXT) for name in self.scores}
        return {name: Forgetting(**values) for name, values in metrics.items() if values}

    @property
    def fidelity(self) -> dict[str, dict]:
        """How far models go with the dense one's own answers (`runs.fidelity.fidelity_metrics`), by model."""
        metrics = {name: self.folder.require("evaluate", name).metrics.get(FIDELITY) for name in self.scores}
        return {name: values for name, values in metrics.items() if values}

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """The names of the tasks in each group; a task that says nothing is in the first group only."""
        dense: Scores = self.scores.get("dense", {})
        groups = task_groups(dense, self.marks)
        if self.trained_capabilities:
            # Without perplexities, which have no mean with scores.
            telling = {task: dense[task] for task in groups.get(ALL_TASKS, []) if task not in self.marks}
            for name, inside in ((TRAINED, True), (HELD_OUT, False)):
                groups[name] = list(subset(telling, self.trained_capabilities, inside))
        return {name: tasks for name, tasks in groups.items() if tasks}

    @property
    def trained_capabilities(self) -> set[str]:
        """What the rows of any arm say that they train; empty where they say nothing."""
        return {name for arm in self.arms.values() for name in arm.metrics.get("capabilities", [])}

    @cached_property
    def rows(self) -> list[RecoveryRow]:
        """The recovery table: every model over every group of tasks."""
        rows = []
        for group, tasks in self.groups.items():
            scores = {name: {task: by_task[task] for task in tasks} for name, by_task in self.scores.items()}
            dense, pruned = scores["dense"], scores.get("pruned")
            rows += [
                RecoveryRow(group, name, recovery(by_task, dense, pruned, self.run.recipe.seed))
                for name, by_task in scores.items()
            ]
        return rows

    @cached_property
    def differences(self) -> list[dict]:
        """The paired differences between every two arms, over every group of tasks."""
        arms = [name for name in self.scores if name not in ("dense", "pruned")]
        pairs = [(later, earlier) for earlier, later in combinations(arms, 2)]
        return [
            {"group": group, "one": one, "other": other} | asdict(self._difference(one, other, tasks))
            for group, tasks in self.groups.items()
            for one, other in pairs
        ]

    def _difference(self, one: str, other: str, tasks: list[str]) -> Estimate:
        return paired_difference(*({task: self.scores[name][task] for task in tasks} for name in (one, other)))

    @cached_property
    def layer_scores(self) -> LayerScores | None:
        """The scores of the blocks."""
        has_scores = self.folder.result("score") is not None
        return LayerScores.load(self.folder.output("score", "scores")) if has_scores else None

    @property
    def search(self) -> dict | None:
        """The search's candidates, and how stable their ranking was."""
        result = self.folder.result("search")
        return result.metrics if result else None

    @property
    def removed(self) -> list[int]:
        """The removed blocks."""
        result = self.folder.result("prune")
        return result.metrics["removed"] if result else []

    @property
    def cut(self) -> str:
        """The sizes of each cut axis, the removed blocks, how they were chosen, and the repairs."""
        result = self.folder.result("prune")
        if result is None:
            return ""
        axes = [f"{axis} {dense} → {kept}" for axis, (dense, kept) in result.metrics["cut"].items()]
        removed = [f"removed blocks {self.removed}"] if self.removed else []
        by = "by hand" if self.run.recipe.prune.keep else f"blocks by {self.run.recipe.prune.by}"
        repairs = [f"repaired: {record['repair']}" for record in result.metrics["repairs"]]
        return "; ".join([", ".join(axes) or "nothing removed", *removed, by, *repairs])

    @property
    def sizes(self) -> dict[str, Size]:
        """The sizes of the dense and the pruned model."""
        result = self.folder.result("prune")
        return {name: Size(**result.metrics[name]) for name in ("dense", "pruned")} if result else {}

    @cached_property
    def work(self) -> dict[str, Work]:
        """What prefill and decoding cost the dense and the pruned model, by count."""
        if self.folder.result("prune") is None:
            return {}
        keep = json.loads(self.folder.output("prune", "keep").read_text())
        return {name: count_work(meta_model(self.run.config, of)) for name, of in (("dense", None), ("pruned", keep))}

    @property
    def speed(self) -> SpeedComparison | None:
        """The pruned model timed against the dense one; None if it was not."""
        if self.folder.result("evaluate", "pruned") is None:
            return None
        timing = json.loads((self.folder.stage_dir("evaluate", "pruned") / TIMING).read_text())
        return SpeedComparison.from_dict(timing["speed"]) if timing.get("speed") else None

    @property
    def value_bytes(self) -> int:
        """The bytes of a weight, or of a value in the KV cache, in the run's dtype."""
        return getattr(torch, self.run.dtype).itemsize

    @property
    def speed_bound(self) -> Bound:
        """How many times as fast operations and bytes allow the pruned model to be."""
        return speed_bound(self.work["dense"], self.work["pruned"])

    @property
    def arms(self) -> dict[str, Result]:
        """The results of the trained arms."""
        results = {name: self.folder.result("recover", name) for name in self.run.recipe.recover}
        return {name: result for name, result in results.items() if result}

    @property
    def logs(self) -> dict[str, list[dict]]:
        """The logged losses of the trained arms."""
        return {name: json.loads(self.folder.output("recover", "log", name).read_text()) for name in self.arms}

    @cached_property
    def selection(self) -> dict:
        """Summaries of the selected rows: of the candidates, of each selection and of each cluster."""
        return self._json("select", "summary") if self.folder.result("select") else {}

    @cached_property
    def selection_pool(self) -> dict[str, list]:
        """What was measured of every candidate row, by column."""
        return Dataset.from_parquet(str(self.folder.output("select", "pool")), keep_in_memory=True).to_dict()

    def _json(self, stage: str, name: str) -> dict:
        return json.loads(self.folder.output(stage, name).read_text())

    @property
    def acceptance(self) -> dict[str, dict]:
        """Acceptance by capability and by answer type, and the change of length (`acceptance_summary`)."""
        result = self.folder.result("rewrite")
        return result.metrics["acceptance"] if result else {}

    @property
    def answer_records(self) -> list[AnswerRecord]:
        """What became of each answer that the dense model was asked to rewrite."""
        if self.folder.result("rewrite") is None:
            return []
        records = read_records(self.folder.output("rewrite", "provenance"))
        return [record for record in records if record.rewrite is not None]

    @property
    def rewriting_examples(self) -> list[dict]:
        """Rewritten answers to show, `{prompt, reference, answer, reason}`: accepted ones first, then kept ones."""
        by_reason: dict[str, list[AnswerRecord]] = {}
        for record in self.answer_records:
            by_reason.setdefault(record.reason, []).append(record)
        count = self.run.recipe.report.examples
        accepted = by_reason.pop(ACCEPTED, [])[: (count + 1) // 2]
        rejected = [record for group in zip_longest(*by_reason.values()) for record in group if record]
        return [self._example(record) for record in accepted + rejected[: count // 2]]

    def _example(self, record: AnswerRecord) -> dict:
        found = turns(rows_to_rewrite(self.run)[record.row], self.run.recipe.rewrite.response_template)
        turn = next(turn for turn in found if turn.index == record.turn)
        return {
            "prompt": turn.instruction,
            "reference": record.reference,
            "answer": record.rewrite,
            "reason": record.reason,
        }

    @property
    def answers(self) -> dict[str, dict[str, str]]:
        """Every model's answer to each open question."""
        by_model = {
            name: json.loads(self.folder.output("evaluate", "answers", name).read_text()) for name in self.scores
        }
        questions = next(iter(by_model.values()), {})
        return {question: {name: answers[question] for name, answers in by_model.items()} for question in questions}

    @cached_property
    def speculation(self) -> dict[str, dict]:
        """What was measured of the dense model's drafts, by draft."""
        return read_speculation(self.run)

    @property
    def speculation_view(self) -> dict:
        """The cells of the tables of drafts."""
        return view(self.run, self.speculation)

    @property
    def seconds(self) -> dict[str, float]:
        """The duration of each finished stage."""
        seconds = {}
        for path in sorted(self.folder.path.glob(f"*/**/{TIMING}")):
            name = " ".join(path.relative_to(self.folder.path).parts[:-1])
            seconds[name] = json.loads(path.read_text()).get("seconds", 0.0)
        return seconds
