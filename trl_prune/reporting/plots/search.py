"""The search's pictures: what each size costs and scores, and how far the ranking still moved."""

from pathlib import Path

from matplotlib.figure import Figure


SIZE, DPI = (7.2, 3.8), 130
WINNER, FRONT, OTHERS = "#c44e52", "#4c72b0", "#b8b8b8"


def pareto(table: dict) -> Figure:
    """Draw cost against score, untrained and at each rung; the front and the winner are marked."""
    figure = Figure(figsize=SIZE)
    axes = figure.subplots()
    unit, word = (1e6, "parameters (M)") if _counts_parameters(table) else (1e9, "GB")
    for rung, tokens in enumerate(table["tokens"]):
        points = [
            (one["cost"] / unit, one["scores"][rung]) for one in table["candidates"] if rung < len(one["scores"])
        ]
        label = f"after {tokens:,} tokens" if rung else "untrained"
        axes.scatter(*zip(*points, strict=True), s=22, label=label, color=_shade(rung, len(table["tokens"])))
    by_name = {one["name"]: one for one in table["candidates"]}
    front = [(by_name[name]["cost"] / unit, by_name[name]["scores"][0]) for name in table["pareto"]]
    axes.plot(*zip(*front, strict=True), color=FRONT, linewidth=0.9, label="front, untrained")
    winner = by_name[table["winner"]]
    place = (winner["cost"] / unit, winner["scores"][-1])
    axes.scatter(*place, s=90, facecolors="none", edgecolors=WINNER, linewidths=1.8)
    axes.annotate(table["winner"], place, xytext=(6, 8), textcoords="offset points", fontsize=8, color=WINNER)
    axes.set(xlabel=word, ylabel=_measure(table), title="Sizes within the budget")
    axes.legend(fontsize=8)
    return figure


def rank_stability(table: dict) -> Figure:
    """Draw every trained candidate's rank at each rung, and how well neighbouring rungs agree."""
    figure = Figure(figsize=SIZE)
    axes = figure.subplots()
    trained = [one for one in table["candidates"] if len(one["scores"]) > 1] or table["candidates"]
    for one in trained:
        ranks = [_rank(one, trained, rung, table) for rung in range(len(one["scores"]))]
        chosen = one["name"] == table["winner"]
        axes.plot(
            range(len(ranks)), ranks, marker="o", label=one["name"],
            color=WINNER if chosen else OTHERS, zorder=2 + chosen, linewidth=2 if chosen else 1,
        )  # fmt: skip
        axes.annotate(one["name"], (len(ranks) - 1, ranks[-1]), xytext=(6, -3), textcoords="offset points", fontsize=7)
    for rung, told in enumerate(table["stability"]):
        if told["kendall"] is not None:
            label = f"τ = {told['kendall']:.2f}"
            axes.annotate(label, (rung + 0.5, 0.4), ha="center", fontsize=8, color=FRONT)
    axes.set_xticks(range(len(table["tokens"])), [f"{tokens:,}" for tokens in table["tokens"]])
    axes.set_yticks(range(1, len(trained) + 1))
    axes.set_xlim(-0.2, len(table["tokens"]) - 0.2)
    axes.set_ylim(len(trained) + 0.6, 0)
    axes.set(xlabel="tokens of training", ylabel="rank", title="How the ranking moved (Kendall's τ from rung to rung)")
    return figure


def _counts_parameters(table: dict) -> bool:
    return all(one["cost"] == one["parameters"] for one in table["candidates"])


def _shade(rung: int, rungs: int) -> tuple[float, float, float]:
    dark = 0.75 * (1 - rung / max(1, rungs - 1))
    return (dark, dark, dark)


def _measure(table: dict) -> str:
    return "held-out loss (nats a token)" if table["score"] == "loss" else f"score on {table['score']}"


def _rank(one: dict, trained: list[dict], rung: int, table: dict) -> int:
    sign = 1 if table["score"] == "loss" else -1
    scores = [sign * other["scores"][rung] for other in trained if rung < len(other["scores"])]
    return 1 + sum(score < sign * one["scores"][rung] for score in scores)


def draw_search(table: dict, folder: Path) -> list[str]:
    """Write the search's pictures and return their file names."""
    pictures = {"pareto.png": pareto(table)} | ({"ranks.png": rank_stability(table)} if table["stability"] else {})
    for name, picture in pictures.items():
        picture.savefig(folder / name, dpi=DPI, bbox_inches="tight")
    return list(pictures)
