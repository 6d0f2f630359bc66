"""The GPU kit, rehearsed without a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
PARTS = ["surgery", "scoring", "SFT", "KD", "cached KD", "QLoRA", "generation, pruned", "FSDP2", "ZeRO-3"]


def test_a_part_that_fails_or_is_skipped_is_a_row_with_its_reason(monkeypatch, tmp_path):
    import gpu
    from gpu_parts import Machine, Skipped

    def fails(_):
        raise ValueError("a | b\nmore")

    def is_skipped(_):
        raise Skipped("no wheel")

    parts = {
        "good": lambda _: {"seconds": 2.0, "tokens_per_second": 1234.5, "peak_bytes": 2 * 10**9, "loss": 1.25},
        "bad": fails,
        "missing": is_skipped,
        "red": lambda _: {"seconds": 1.0, "failures": 1, "failed": True},
    }
    monkeypatch.setattr(gpu, "PARTS", parts)
    machine = Machine("cpu", True, tmp_path, tmp_path)
    rows = gpu.table({name: gpu.do(name, machine) | {"all_seconds": 3.0} for name in parts}).splitlines()[2:]
    assert rows == [
        "| good | measured | 2.0 | 1,234 | 2.00 | loss 1.25 |",
        "| bad | failed | 3.0 |  |  | ValueError: a / b |",
        "| missing | skipped | 3.0 |  |  | no wheel |",
        "| red | failed | 1.0 |  |  | failures 1 |",
    ]


def test_the_tests_that_it_runs_exist():
    from gpu_parts import LAUNCHES, ROOT, TESTS, TINY_TESTS

    assert all((ROOT / path).exists() for path in (*TESTS, *TINY_TESTS))
    assert all((ROOT / "examples" / "accelerate" / name).exists() for name in LAUNCHES.values())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_rehearsal_measures_every_part_that_this_machine_can_do(tmp_path):
    command = [sys.executable, str(SCRIPT), "--output", str(tmp_path), "--device", "cpu", "--tiny", "--parts", *PARTS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert list(parts) == PARTS
    for name in ("SFT", "KD", "cached KD"):
        assert parts[name]["status"] == "measured"
        assert parts[name]["tokens_per_second"] > 0
        assert parts[name]["peak_bytes"] > 0
    assert parts["surgery"]["same_tokens_as_float32"] == 1
    assert parts["generation, pruned"]["status"] == "measured"
    assert parts["FSDP2"]["status"] == "skipped"
    assert "| KD | measured |" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]  # nothing else is left
