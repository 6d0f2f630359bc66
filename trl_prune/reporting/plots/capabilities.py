"""Figure of the capabilities: which of them pruning broke, and which came back."""

from dataclasses import dataclass
from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trl_prune.evaluation.comparison import Comparison, compare_models
from trl_prune.evaluation.recovery import Estimate, Scores
from trl_prune.reporting.comparisons import comparisons
from trl_prune.reporting.plots.style import NARROW, TEXT, add_legend, legend_height, model_style
from trl_prune.reporting.results import RunResults
from trl_prune.runs.stage import Panel


# Heights in inches: of a bar, and of the line above a capability's bars.
BAR, HEADING = 0.12, 0.32
# Characters of a line of text as wide as the figure.
LINE = 40
# What marks a model that brought a capability back.
BACK = "\N{BLACK UP-POINTING TRIANGLE}"


@dataclass(frozen=True)
class Capability:
    """The scores of every model on the tasks of one capability.

    Attributes:
        name: the capability, or the task where its tasks name none.
        scores: each model's mean score over the tasks.
        chance: the mean chance score; None where it is unknown.
        broke: whether the pruned model is significantly worse than the dense one on one of the tasks.
        back: the models than which the pruned one is significantly worse on one of them.
    """

    name: str
    scores: dict[str, Estimate]
    chance: float | None
    broke: bool
    back: list[str]


def capabilities(results: RunResults) -> list[Capability]:
    """Return the capabilities of the evaluated tasks, what pruning cost most first."""
    names = dict.fromkeys(score.capability or task for task, score in _shares(results).items())
    broken, back = _broken(results), _back(results)
    found = [_capability(results, name, broken, back) for name in names]
    return sorted(found, key=_loss, reverse=True)


def _broken(results: RunResults) -> set[str]:
    """Return the tasks on which the pruned model is significantly worse than the dense one, by the report's test."""
    compared = comparisons(results)
    return _worse(compared["pruned"]) if "pruned" in compared else set()


def _back(results: RunResults) -> dict[str, set[str]]:
    """Return the tasks on which the pruned model is significantly worse than each recovered one."""
    pruned = results.scores.get("pruned")
    recovered = {name: scores for name, scores in results.scores.items() if name not in ("dense", "pruned")}
    if pruned is None:
        return {}
    return {
        name: _worse(compare_models(pruned, scores, marks=results.marks, seed=results.run.recipe.seed))
        for name, scores in recovered.items()
    }


def _worse(comparison: Comparison) -> set[str]:
    return {task.task for task in comparison.worse if not task.mark}


def _shares(results: RunResults) -> Scores:
    """Return the dense model's scores between 0 and 1, which have one axis: no perplexities."""
    return {task: score for task, score in results.scores.get("dense", {}).items() if score.kind != "likelihood"}


def _loss(capability: Capability) -> float:
    scores = capability.scores
    return scores["dense"].value - scores["pruned"].value if "pruned" in scores else 0.0


def _capability(results: RunResults, name: str, broken: set[str], back: dict[str, set[str]]) -> Capability:
    dense = _shares(results)
    tasks = [task for task, score in dense.items() if (score.capability or task) == name]
    scores = {model: {task: by_task[task] for task in tasks} for model, by_task in results.scores.items()}
    chances = [dense[task].chance for task in tasks]
    return Capability(
        name,
        {model: _mean(by_task) for model, by_task in scores.items()},
        None if None in chances else sum(chances) / len(chances),
        not broken.isdisjoint(tasks),
        [model for model, better in back.items() if not better.isdisjoint(tasks)],
    )


def _mean(scores: Scores) -> Estimate:
    """Return the mean score over tasks and its standard error over items."""
    stderr = sum(score.stderr**2 for score in scores.values()) ** 0.5 / len(scores)
    return Estimate(sum(score.mean for score in scores.values()) / len(scores), stderr)


def capability_scores(results: RunResults) -> Figure:
    """Draw every model's score on every capability, with standard errors and the chance score dotted."""
    measured, models = capabilities(results), list(results.scores)
    found = [capability for capability in measured if any(score.value for score in capability.scores.values())]
    height = len(found) * (HEADING + BAR * len(models)) + legend_height(models) + 0.6
    figure = Figure(figsize=(NARROW, height), layout="constrained")
    axes = figure.subplots()
    top = 0.0
    for capability in found:
        _draw_capability(axes, results, capability, top)
        top += HEADING + BAR * len(models)
    axes.set(xlim=(0, None), ylim=(top, -0.05), yticks=[])
    axes.set_xlabel("\n".join(["score (dotted: chance)", *_without_scores(measured)]), fontsize=TEXT)
    axes.tick_params(labelsize=TEXT)
    axes.spines[["top", "right"]].set_visible(False)
    add_legend(figure, axes, "outside upper left")
    return figure


def _without_scores(measured: list[Capability]) -> list[str]:
    """Return a sentence, in lines, about the capabilities on which all models score 0; they have no bars."""
    names = [capability.name for capability in measured if not any(one.value for one in capability.scores.values())]
    return wrap(f"All models score 0: {', '.join(names)}", LINE) if names else []


def _draw_capability(axes: Axes, results: RunResults, capability: Capability, top: float) -> None:
    heading = f"{capability.name}: broke" if capability.broke else capability.name
    axes.text(0, top + HEADING - 0.04, heading, fontsize=TEXT, va="bottom", fontweight="bold", in_layout=False)
    for index, (model, score) in enumerate(capability.scores.items()):
        style = model_style(results, model)
        axes.barh(
            top + HEADING + BAR * (index + 0.5),
            score.value,
            BAR,
            xerr=score.stderr,
            color=style.colour,
            hatch=style.hatch,
            edgecolor="white",
            linewidth=0.5,
            ecolor="black",
            capsize=2,
            label=model,
        )
        if model in capability.back:
            place = (score.value + score.stderr, top + HEADING + BAR * (index + 0.5))
            axes.annotate(BACK, place, xytext=(4, 0), textcoords="offset points", fontsize=TEXT - 3, va="center")
    if capability.chance:
        ends = [top + HEADING, top + HEADING + BAR * len(capability.scores)]
        axes.plot([capability.chance] * 2, ends, "k:", linewidth=1.4)


CAPABILITIES = Panel(
    "capabilities",
    _shares,
    capability_scores,
    "Score of each capability, what pruning cost most first, with standard errors. Broke: the pruned model is "
    "significantly worse than the dense one on one of its tasks (5 %, adjusted for all tasks); a triangle: the pruned "
    "model is so beside this one. Tasks that say nothing count for neither.",
)
