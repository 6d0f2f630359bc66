"""What a finished run found, gathered from its results for tables, plots and pages."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property

from trl_prune.evaluation.efficiency import Size
from trl_prune.evaluation.recovery import Recovery, Scores, TaskScore, paired_difference, recovery, subset
from trl_prune.pruning.importance.layers import LayerScores
from trl_prune.runs.context import Run
from trl_prune.stages.evaluate import read_scores


# Groups of tasks that the tables keep apart; those without tasks are left out.
ALL, TRAINED, HELD_OUT = "all tasks", "capabilities with training rows", "capabilities without training rows"


@dataclass(frozen=True)
class RecoveryRow:
    """One model's line in the recovery table."""

    group: str
    model: str
    recovery: Recovery


class RunResults:
    """A run folder's results, read once."""

    def __init__(self, run: Run):
        self.run = run
        self.folder = run.folder

    @cached_property
    def scores(self) -> dict[str, dict[str, TaskScore]]:
        """Per model, per task, the score with its items."""
        return {name: self._scores(name) for name in self.run.recipe.evaluated if self.folder.result("evaluate", name)}

    def _scores(self, model: str) -> dict[str, TaskScore]:
        tasks = self.folder.needed("evaluate", model).metrics
        return read_scores(self.folder.stage_dir("evaluate", model), list(tasks))

    @property
    def groups(self) -> dict[str, list[str]]:
        """The groups of tasks, by name to tasks."""
        dense: Scores = self.scores.get("dense", {})
        told = {ALL: list(dense), TRAINED: list(subset(dense, True)), HELD_OUT: list(subset(dense, False))}
        return {name: tasks for name, tasks in told.items() if tasks}

    @cached_property
    def lines(self) -> list[RecoveryRow]:
        """The recovery table: every model over every group of tasks."""
        lines = []
        for group, tasks in self.groups.items():
            part = {name: {task: scores[task] for task in tasks} for name, scores in self.scores.items()}
            lines += [
                RecoveryRow(group, name, recovery(scores, part["dense"], part.get("pruned"), self.run.recipe.seed))
                for name, scores in part.items()
            ]
        return lines

    @cached_property
    def differences(self) -> list[dict]:
        """Paired differences between every two arms, over every group of tasks."""
        arms = [name for name in self.scores if name not in ("dense", "pruned")]
        pairs = [(one, other) for number, other in enumerate(arms) for one in arms[number + 1 :]]
        return [
            {"group": group, "one": one, "other": other} | asdict(self._difference(one, other, tasks))
            for group, tasks in self.groups.items()
            for one, other in pairs
        ]

    def _difference(self, one: str, other: str, tasks: list[str]) -> object:
        scores = [{task: self.scores[name][task] for task in tasks} for name in (one, other)]
        return paired_difference(*scores)

    @cached_property
    def layer_scores(self) -> LayerScores | None:
        """The block scores, where the run has them."""
        has = self.folder.result("score") is not None
        return LayerScores.load(self.folder.output("score", "scores")) if has else None

    @property
    def search(self) -> dict | None:
        """The search's candidates and how stable their ranking was, where the run has them."""
        result = self.folder.result("search")
        return result.metrics if result else None

    @property
    def removed(self) -> list[int]:
        """The removed blocks."""
        result = self.folder.result("prune")
        return result.metrics["removed"] if result else []

    @property
    def cut(self) -> str:
        """What went, by axis, by what, and what was repaired."""
        result = self.folder.result("prune")
        if result is None:
            return ""
        axes = [f"{axis} {dense} → {kept}" for axis, (dense, kept) in result.metrics["cut"].items()]
        removed = [f"removed blocks {self.removed}"] if self.removed else []
        by = "by hand" if self.run.recipe.prune.keep else f"blocks by {self.run.recipe.prune.by}"
        repairs = [f"repaired: {record['repair']}" for record in result.metrics["repairs"]]
        return "; ".join([", ".join(axes) or "nothing went", *removed, by, *repairs])

    @property
    def sizes(self) -> dict[str, Size]:
        """The sizes of the dense and the pruned model."""
        result = self.folder.result("prune")
        return {name: Size(**result.metrics[name]) for name in ("dense", "pruned")} if result else {}

    @property
    def speeds(self) -> dict[str, dict[str, float]]:
        """Measured tokens per second of the dense and the pruned model."""
        return {
            name: json.loads((self.folder.stage_dir("evaluate", name) / "timing.json").read_text())[
                "tokens_per_second"
            ]
            for name in ("dense", "pruned")
            if name in self.scores
        }

    @property
    def logs(self) -> dict[str, list[dict]]:
        """Per arm, the logged losses."""
        arms = [name for name in self.run.recipe.recover if self.folder.result("recover", name)]
        return {name: json.loads(self.folder.output("recover", "log", name).read_text()) for name in arms}

    @property
    def acceptance(self) -> dict[str, dict]:
        """Per capability, the share of rows rewritten and why others were not."""
        result = self.folder.result("rewrite")
        return result.metrics["acceptance"] if result else {}

    @property
    def rewritten_rows(self) -> list[dict]:
        """The rewritten dataset's rows."""
        if self.folder.result("rewrite") is None:
            return []
        lines = self.folder.output("rewrite", "rows").read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line]

    @property
    def answers(self) -> dict[str, dict[str, str]]:
        """Per open question, every model's answer."""
        told = {name: json.loads(self.folder.output("evaluate", "answers", name).read_text()) for name in self.scores}
        questions = next(iter(told.values()), {})
        return {question: {name: answers[question] for name, answers in told.items()} for question in questions}
