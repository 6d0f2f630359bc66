"""The figure and the table of size and speed, of results made by hand."""

from importlib.resources import files
from types import SimpleNamespace

import jinja2
import pytest

from trl_prune.evaluation.efficiency import Size, Work
from trl_prune.evaluation.speed import Speed, SpeedComparison, speed_bound
from trl_prune.evaluation.timing import Interval
from trl_prune.reporting.plots.evaluation import size_and_speed


def results_with(speed):
    work = {"dense": Work(2.5e8, 134_515_584, 11_520.0), "pruned": Work(2e8, 113_275_008, 9_216.0)}
    return SimpleNamespace(
        sizes={"dense": Size(134_500_000, 3.04e8), "pruned": Size(113_300_000, 2.5e8)},
        work=work,
        speed=speed,
        speed_bound=speed_bound(work["dense"], work["pruned"]),
        value_bytes=4,
        run=SimpleNamespace(dtype="float32", recipe=SimpleNamespace(models=["dense", "pruned"])),
    )


def comparison(peak_bytes=None):
    speeds = (
        Speed(Interval(512.0, 500.0, 520.0), Interval(value, value - 1, value + 1), 538_000_000, peak_bytes)
        for value in (25.0, 29.5)
    )
    return SpeedComparison(*speeds, Interval(1.2, 1.17, 1.22), Interval(1.18, 1.16, 1.2))


def test_the_figure_shows_measured_gains_beside_what_the_cost_allows():
    cost, gain = size_and_speed(results_with(comparison())).axes
    assert [bar.get_width() for bar in cost.patches] == pytest.approx([84.24, 82.24, 80.0], abs=0.01)
    (allowed,) = [line.get_xdata() for line in gain.lines if line.get_marker() == "D"]
    assert list(allowed) == pytest.approx([1.25, 1.187676], abs=1e-6)
    assert list(gain.containers[0].lines[0].get_xdata()) == [1.2, 1.18]


def test_without_a_measurement_the_figure_shows_the_cost_alone():
    assert len(size_and_speed(results_with(None)).axes) == 1


@pytest.mark.parametrize("page", ["html", "md"])
def test_the_table_tells_the_gain_and_its_interval(page):
    template = (files("trl_prune") / "reporting" / "templates" / f"size_table.{page}.j2").read_text()
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=page == "html")
    text = environment.from_string(template).render(results=results_with(comparison()))
    assert "It decodes 1.18x [1.16, 1.20] as fast as the dense model; the bytes that it reads allow 1.19x." in text
    assert "134,500,000" in text
    assert "538" in text
    assert "46.1" in text  # kilobytes of KV cache
    assert "peak memory" not in text
    unmeasured = environment.from_string(template).render(results=results_with(None))
    assert "tokens/s" not in unmeasured
    on_gpu = environment.from_string(template).render(results=results_with(comparison(peak_bytes=700_000_000)))
    assert "peak memory" in on_gpu
    if page == "md":
        widths = {line.count("|") for line in on_gpu.splitlines() if line.startswith("|")}
        assert len(widths) == 1
        assert len([line for line in text.splitlines() if line.startswith("|")]) == 4
