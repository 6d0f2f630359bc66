"""The whole road on a tiny random model, killed at random moments: it must end with an unbroken run's files.

    python benchmarks/kills.py --kills 50 [--signal TERM] [--seed 0] [--short] [--folder DIR]
    python benchmarks/kills.py --two

Everything is imported once; each start of the road is a forked child that runs the command line. `--two` starts two of
them in one folder at the same moment: one must run, the other must end with one sentence and exit code 2.
"""

import argparse
import importlib
import json
import os
import pkgutil
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml


sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
import trl_prune
from tests.recipes import recipe_values


# Every road is run in this folder and then moved, because results hold paths.
RUN = "run"
# What depends on the machine or the moment: measured times, and pages and pictures of them.
NOT_COMPARED = {"timing.json", "report.md", ".lock"}
PICTURES = (".html", ".svg", ".png")
OF_A_MOMENT = re.compile(r"seconds|runtime|per_second|date|time", re.IGNORECASE)
# lm-eval's files, whose names and values hold a moment; what counts of them is in result.json.
EVAL_FILES = ("results_", "samples_")
# Kills of one road at most, then it may finish and be compared; and the latest of them, as a share of the CPU seconds
# of an unbroken road, because a clock tells little on a busy machine.
KILLS_OF_A_ROAD, LATEST = 5, 0.5
WAIT = 0.005


@dataclass(frozen=True)
class End:
    """How a start of the road ended: its exit code, None for killed, and the stage that it was in."""

    code: int | None
    stage: str


def write_recipe(folder: Path, short: bool) -> Path:
    """Write the recipe of a road, and return its path."""
    values = recipe_values(folder, RUN)
    args = values["recover"]["sft"]["args"]
    values["prune"] = {"target": {"layers": 2, "intermediate_size": 32}}
    values["cache_teacher"] = {"batch_size": 4}
    values["recover"] = {
        "sft": {"data": "references", "args": args},
        "kd": {"method": "kd", "data": "references", "args": args},
    }
    if short:
        del values["rewrite"]
        values["evaluate"] = {"tasks": []}
    else:
        selection = {"budget": 0.5, "embedder": "hidden_states", "clusters": 2, "near_duplicates": None}
        lora = {"args": args, "peft": {"r": 2, "lora_dropout": 0.1}}
        values["recover"]["selfd"] = lora
        values |= {"select": selection, "merge": {"recipe": "slerp", "models": ["sft", "kd"]}}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def import_everything() -> None:
    """Import what a road needs, so that a forked child starts at once and no edit meanwhile changes it."""
    own = [module.name for module in pkgutil.walk_packages(trl_prune.__path__, "trl_prune.")]
    for name in (*own, "lm_eval.tasks", "lm_eval.evaluator", "mergekit.merge", "peft", "trl"):
        importlib.import_module(name)


def start(recipe: Path, log: Path) -> int:
    """Start the road in a forked child, whose output goes to a file, and return the child's process id."""
    child = os.fork()
    if child:
        return child
    with log.open("ab", buffering=0) as stream:
        os.dup2(stream.fileno(), sys.stdout.fileno())
        os.dup2(stream.fileno(), sys.stderr.fileno())
    code = 70
    try:
        from trl_prune.cli import main

        code = main(["run", str(recipe)])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(code)


def wait(child: int) -> tuple[int, float]:
    """Wait for a child, and return its exit code and its CPU seconds."""
    _, status, usage = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime


def has_spent(child: int, seconds: float) -> bool:
    """Wait until a child has spent some CPU seconds or has ended, and return whether it has spent them."""
    process = psutil.Process(child)
    while process.status() != psutil.STATUS_ZOMBIE:
        times = process.cpu_times()
        if times.user + times.system >= seconds:
            return True
        time.sleep(WAIT)
    return False


def stage_of(run_dir: Path) -> str:
    """Return the stage that has begun and has no result yet, in words."""
    pending = sorted(path.parent.relative_to(run_dir).parts[0] for path in run_dir.rglob("pending.json"))
    return pending[0] if pending else "before or between stages"


def run_killed(recipe: Path, log: Path, seconds: float, number: signal.Signals) -> End:
    """Run the road, kill it after some CPU seconds if it still runs, and return how it ended."""
    child = start(recipe, log)
    if has_spent(child, seconds):
        os.kill(child, number)
    code, _ = wait(child)
    stage = stage_of(recipe.parent / RUN)
    return End(None, stage) if code == -number else End(code, "")


def compared_files(run_dir: Path) -> dict[str, bytes]:
    """Return the content of every file of a run that must not depend on kills, by its path in the run."""
    found = {}
    for path in sorted(run_dir.rglob("*")):
        name = str(path.relative_to(run_dir))
        if path.is_file() and path.name not in NOT_COMPARED and not path.name.startswith(EVAL_FILES):
            found[name] = _content(path)
    return found


def _content(path: Path) -> bytes:
    if path.suffix in PICTURES:  # that they are there is compared
        return b""
    content = path.read_bytes()
    if path.suffix == ".jsonl":  # a kill leaves the start of a line, which is read over
        return b"\n".join(line for line in content.splitlines() if _is_json(line))
    if path.suffix == ".json":
        return json.dumps(_without_moments(json.loads(content)), sort_keys=True).encode()
    return content


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _without_moments(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_moments(inner) for key, inner in value.items() if not OF_A_MOMENT.search(key)}
    return [_without_moments(inner) for inner in value] if isinstance(value, list) else value


def differences(one: Path, other: Path) -> list[str]:
    """Return the files that are in one of two runs only, or differ."""
    first, second = compared_files(one), compared_files(other)
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def kill_roads(folder: Path, kills: int, number: signal.Signals, seed: int, short: bool) -> bool:
    """Kill roads at random moments until there were `kills`, print what happened, and return whether all is equal."""
    recipe, draws = write_recipe(folder, short), random.Random(seed)
    code, seconds = wait(start(recipe, folder / "log.txt"))
    print(f"unbroken: exit code {code}, {seconds:.1f} CPU seconds", flush=True)
    (folder / RUN).rename(folder / "unbroken")
    stages: Counter[str] = Counter()
    different, roads = [], 0
    while sum(stages.values()) < kills:
        roads += 1
        name = f"road{roads}"
        ends = list(_one_road(recipe, draws, kills - sum(stages.values()), LATEST * seconds, number))
        stages.update(end.stage for end in ends if end.code is None)
        found = [f"exit code {end.code}" for end in ends if end.code]
        if (folder / RUN).is_dir():  # else it was killed before it wrote anything, and refused after that
            (folder / RUN).rename(folder / name)
            found += differences(folder / "unbroken", folder / name)
        different += [f"{name}: {what}" for what in found]
        print(f"{name}: killed in {', '.join(end.stage for end in ends if end.code is None)}", flush=True)
    _print_table(stages, roads, different, number)
    return not different and code == 0


def _one_road(recipe: Path, draws: random.Random, kills: int, latest: float, number: signal.Signals) -> Iterator[End]:
    """Yield how each start of a road ended: killed as often as it may be, or not any more."""
    log = recipe.parent / "log.txt"
    for _ in range(min(kills, KILLS_OF_A_ROAD)):
        end = run_killed(recipe, log, draws.uniform(0, latest), number)
        yield end
        if end.code is not None:
            return
    yield End(wait(start(recipe, log))[0], "")


def _print_table(stages: Counter[str], roads: int, different: list[str], number: signal.Signals) -> None:
    print(f"\n| killed in | {number.name} |\n|---|---|")
    for stage, count in stages.most_common():
        print(f"| {stage} | {count} |")
    print(f"\n{sum(stages.values())} kills of {roads} roads: ", end="")
    print("all files equal the unbroken run's" if not different else "different:\n  " + "\n  ".join(different))


def run_two(folder: Path, short: bool) -> bool:
    """Start two roads in one folder at the same moment, print how they ended, and return whether one was refused."""
    recipe = write_recipe(folder, short)
    logs = [folder / f"log{number}.txt" for number in (1, 2)]
    codes = [wait(child)[0] for child in [start(recipe, log) for log in logs]]
    refused = "".join(log.read_text() for log, code in zip(logs, codes, strict=True) if code == 2)
    sentences = [line for line in refused.splitlines() if line.startswith("trl-prune: ")]
    print(f"exit codes {codes}; refused: {sentences}")
    return sorted(codes) == [0, 2] and len(sentences) == 1 and "in use by another" in sentences[0]


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def main() -> int:
    """Run what the command line asks for; the exit code is 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--signal", choices=["KILL", "TERM"], default="KILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="without select, rewrite, merge and evaluate")
    parser.add_argument("--two", action="store_true", help="two processes in one folder instead")
    parser.add_argument("--folder", type=Path, help="an empty folder that is kept; a temporary one by default")
    arguments = parser.parse_args()
    import_everything()
    with _folder(arguments.folder) as folder:
        if arguments.two:
            equal = run_two(folder, arguments.short)
        else:
            number = signal.Signals[f"SIG{arguments.signal}"]
            equal = kill_roads(folder, arguments.kills, number, arguments.seed, arguments.short)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
