"""Figures of the search: cost against score of every size, and how the ranking changed during training."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trl_prune.reporting.plots.style import BLUE, DPI, GREY, RED, new_figure
from trl_prune.runs.stage import Panel


WINNER, FRONT, OTHERS = RED, BLUE, GREY


def pareto(table: dict) -> Figure:
    """Draw cost against score, untrained and after each rung; the Pareto front and the winner are marked.

    Args:
        table: the search's `candidates.json`.
    """
    figure, axes = new_figure()
    unit, label = (1e6, "parameters (M)") if _counts_parameters(table) else (1e9, "GB")
    for rung, tokens in enumerate(table["tokens"]):
        trained = [candidate for candidate in table["candidates"] if rung < len(candidate["scores"])]
        points = [(candidate["cost"] / unit, candidate["scores"][rung]) for candidate in trained]
        rung_label = f"after {tokens:,} tokens" if rung else "untrained"
        colour = _shade(rung, len(table["tokens"]))
        axes.scatter(*zip(*points, strict=True), s=22, label=rung_label, color=colour)
    by_name = {candidate["name"]: candidate for candidate in table["candidates"]}
    front = [(by_name[name]["cost"] / unit, by_name[name]["scores"][0]) for name in table["pareto"]]
    axes.plot(*zip(*front, strict=True), color=FRONT, linewidth=0.9, label="front, untrained")
    winner = by_name[table["winner"]]
    point = (winner["cost"] / unit, winner["scores"][-1])
    axes.scatter(*point, s=90, facecolors="none", edgecolors=WINNER, linewidths=1.8)
    axes.annotate(table["winner"], point, xytext=(6, 8), textcoords="offset points", fontsize=8, color=WINNER)
    axes.set(xlabel=label, ylabel=_score_label(table), title="Sizes within the budget")
    axes.legend(fontsize=8)
    return figure


def rank_stability(table: dict) -> Figure:
    """Draw every trained candidate's rank at each rung, with Kendall's tau between neighbouring rungs.

    Args:
        table: the search's `candidates.json`.
    """
    figure, axes = new_figure()
    trained = [candidate for candidate in table["candidates"] if len(candidate["scores"]) > 1] or table["candidates"]
    for candidate in trained:
        ranks = [_rank(candidate, trained, rung, table) for rung in range(len(candidate["scores"]))]
        _draw_ranks(axes, candidate["name"], ranks, is_winner=candidate["name"] == table["winner"])
    for rung, agreement in enumerate(table["stability"]):
        if agreement["kendall"] is not None:
            label = f"τ = {agreement['kendall']:.2f}"
            axes.annotate(label, (rung + 0.5, 0.4), ha="center", fontsize=8, color=FRONT)
    axes.set_xticks(range(len(table["tokens"])), [f"{tokens:,}" for tokens in table["tokens"]])
    axes.set_yticks(range(1, len(trained) + 1))
    axes.set_xlim(-0.2, len(table["tokens"]) - 0.2)
    axes.set_ylim(len(trained) + 0.6, 0)
    axes.set(xlabel="training tokens", ylabel="rank", title="Ranking at each rung (Kendall's τ between rungs)")
    return figure


def _draw_ranks(axes: Axes, name: str, ranks: list[int], is_winner: bool) -> None:
    style = {"color": WINNER, "zorder": 3, "linewidth": 2} if is_winner else {"color": OTHERS, "linewidth": 1}
    axes.plot(range(len(ranks)), ranks, marker="o", label=name, **style)
    axes.annotate(name, (len(ranks) - 1, ranks[-1]), xytext=(6, -3), textcoords="offset points", fontsize=7)


def _counts_parameters(table: dict) -> bool:
    return all(candidate["cost"] == candidate["parameters"] for candidate in table["candidates"])


def _shade(rung: int, rungs: int) -> tuple[float, float, float]:
    """Return a grey that darkens with the rungs."""
    grey = 0.75 * (1 - rung / max(1, rungs - 1))
    return (grey, grey, grey)


def _score_label(table: dict) -> str:
    return "held-out loss (nats per token)" if table["score"] == "loss" else f"score on {table['score']}"


def _rank(candidate: dict, trained: list[dict], rung: int, table: dict) -> int:
    sign = 1 if table["score"] == "loss" else -1
    scores = [sign * other["scores"][rung] for other in trained if rung < len(other["scores"])]
    return 1 + sum(score < sign * candidate["scores"][rung] for score in scores)


def draw_search(table: dict, folder: Path) -> list[str]:
    """Write the search's figures into its folder and return their file names."""
    figures = {"pareto.png": pareto(table)}
    if table["stability"]:
        figures["ranks.png"] = rank_stability(table)
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=DPI, bbox_inches="tight")
    return list(figures)


PARETO = Panel(
    "search_pareto",
    lambda results: results.search,
    lambda results: pareto(results.search),
    "Cost and score of every size.",
)
RANK_STABILITY = Panel(
    "search_ranks",
    lambda results: results.search and results.search["stability"],
    lambda results: rank_stability(results.search),
    "Ranking of the sizes during the short trainings.",
)
