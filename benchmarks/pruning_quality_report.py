"""The table and the plot of pruning_quality.py."""

# Higher perplexities are in the table but not in the plot.
MAX_DRAWN = 1000


def table(results):
    """Return the rows as markdown."""
    dense = next(row for row in results if row["kind"] == "dense")
    lines = ["| cut | how much | repairs | parameters | perplexity | KL to dense |", "|---|---|---|---|---|---|"]
    for row in sorted(results, key=lambda row: (row["kind"] != "dense", row["kind"], str(row["amount"]))):
        share = row["parameters"] / dense["parameters"]
        lines.append(
            f"| {row['option']} | {row['amount']} | {row['repairs']} | {share:.1%} | {row['perplexity']:.1f} "
            f"| {row['kl']:.3f} |"
        )
    return "\n".join(lines)


def draw(results, path):
    """Draw perplexity against the share of parameters, for each option without repairs and with the best ones."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    dense = next(row for row in results if row["kind"] == "dense")
    figure, panels = plt.subplots(1, 2, figsize=(12, 5.5), sharey=True, layout="constrained")
    for axes, kind in zip(panels, ("depth", "width"), strict=True):
        options = sorted({row["option"] for row in results if row["kind"] == kind})
        for number, option in enumerate(options):
            line(axes, [row for row in results if row["option"] == option], dense, f"C{number}")
        axes.axhline(dense["perplexity"], color="grey", linestyle=":", label="dense")
        axes.set(yscale="log", ylim=(0.85 * dense["perplexity"], MAX_DRAWN), xlabel="share of the dense parameters")
        axes.yaxis.set_major_formatter("{x:.0f}")
        axes.yaxis.set_minor_formatter("{x:.0f}")
        axes.set_title(f"{kind}: without repairs (dashed), with the best repair (solid)")
        axes.legend(fontsize=8)
    panels[0].set_ylabel("perplexity (held out)")
    figure.savefig(path, dpi=130)


def line(axes, results, dense, colour):
    """Draw one option: dashed without repairs, solid with its best repair."""
    shares = sorted({row["parameters"] for row in results})
    for plain, style in ((True, "--"), (False, "-")):
        points = [
            min(
                (row for row in results if row["parameters"] == share and (row["repairs"] == "none") == plain),
                key=lambda row: row["perplexity"],
                default=None,
            )
            for share in shares
        ]
        points = [(row["parameters"] / dense["parameters"], row["perplexity"]) for row in points if row]
        if points:
            label = None if plain else results[0]["option"]
            axes.plot(*zip(*points, strict=True), style, marker="o", markersize=4, color=colour, label=label)
