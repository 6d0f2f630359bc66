"""cache_teacher: the dense model reads the training rows once, so that arms distil without it."""

import json
import time
from pathlib import Path

from torch.utils.data import ConcatDataset

from trl_prune.checkpoints import load_tokenizer
from trl_prune.data.sharing import ProcessShare
from trl_prune.data.teacher import LazyTeacher
from trl_prune.data.teacher_cache.codecs import CODECS, Codec, Sampled, TopK, settings_of
from trl_prune.data.teacher_cache.encoding import CacheSpec
from trl_prune.data.teacher_cache.writing import write_cache, write_shards
from trl_prune.errors import InputError
from trl_prune.recipe import ArmSection
from trl_prune.runs.arms import arm_rows, rows_hash, training_args
from trl_prune.runs.artifacts import StageOutput
from trl_prune.runs.context import Run
from trl_prune.runs.sharing import run_shared, single_process_share
from trl_prune.runs.stage import Stage
from trl_prune.trainers.kd.cache_checks import check_serves
from trl_prune.trainers.kd.config import KDConfig
from trl_prune.trainers.preparation import preparation_args, prepare_rows


CACHE = "cache"
# Arguments that say where rows are prepared, not how.
MACHINE = ("use_cpu", "dataset_num_proc")


def codec(run: Run) -> Codec:
    """Return how the recipe writes the teacher down."""
    section = run.recipe.cache_teacher
    told = {
        "sampled": {"draws": section.draws, "seed": run.recipe.seed},
        "topk": {"k": section.k, "temperature": section.temperature},
        "hidden": {},
    }
    return CODECS[section.tier](**told[section.tier])


def readings(run: Run) -> dict[str, ArmSection]:
    """Return the arms that read the cache, one of those whose rows are prepared alike."""
    told: dict[str, ArmSection] = {}
    for arm in run.recipe.cached_arms.values():
        told.setdefault(reading(run, arm), arm)
    return told


def reading(run: Run, arm: ArmSection) -> str:
    """Return the words that decide an arm's prepared rows."""
    told = preparation_args(training_args(run, arm))
    told = {name: value for name, value in told.items() if name not in MACHINE}
    return json.dumps([arm.data, told], sort_keys=True, default=str)


def wanted(run: Run) -> CacheSpec:
    """Return what is to be written."""
    tokenizer = load_tokenizer(run.teacher_dir)  # the run's own is not to learn an arm's end or padding token
    prepared = [
        prepare_rows(arm_rows(run, arm), training_args(run, arm), tokenizer, answers_only=True)
        for arm in readings(run).values()
    ]
    teacher = LazyTeacher(run.load_teacher, tokenizer, run.teacher_fingerprint)
    return CacheSpec(ConcatDataset(prepared), teacher, codec(run), run.recipe.cache_teacher.batch_size)


def divide(run: Run, folder: Path, share: ProcessShare) -> None:
    """Write one process's share of the shards."""
    write_shards(folder / CACHE, wanted(run), share)


def work(run: Run, unit: str, folder: Path) -> StageOutput:  # noqa: ARG001
    """Write the cache, leaving the shards that an interrupted pass wrote."""
    start = time.perf_counter()
    run_shared(run, "cache_teacher", folder)
    facts = write_cache(folder / CACHE, wanted(run), single_process_share("cache teacher", "shard")).facts
    size = sum(path.stat().st_size for path in (folder / CACHE).glob("shard-*"))
    metrics = {
        "tier": run.recipe.cache_teacher.tier,
        "sequences": facts.sequences,
        "tokens": facts.tokens,
        "positions": facts.positions,
        "bytes_per_position": size / facts.positions,
        "flops": facts.tokens * run.size().flops_per_token,
        "plan": facts.plan,
    }
    # A teacher's rounding depends on the machine, so the shards get no fingerprint; `plan` names what they hold.
    return StageOutput({"cache": CACHE}, metrics, {"seconds": time.perf_counter() - start}, frozenset({"cache"}))


def inputs(run: Run, unit: str) -> dict[str, str]:  # noqa: ARG001
    """Name the dense model and the rows."""
    data = {arm.data for arm in run.recipe.cached_arms.values()}
    return {"dense": run.teacher_fingerprint} | {f"rows {name}": rows_hash(run, name) for name in sorted(data)}


def settings(run: Run, unit: str) -> dict:  # noqa: ARG001
    """Name what decides the cache besides."""
    return {"codec": settings_of(codec(run)), "rows": sorted(readings(run)), "dtype": run.dtype}


def plan(run: Run, unit: str) -> str:  # noqa: ARG001
    """Say what will be kept of each token, for whom."""
    told = codec(run)
    kept = {
        "sampled": f"{run.recipe.cache_teacher.draws} draws",
        "topk": f"{run.recipe.cache_teacher.k} likeliest ids",
        "hidden": f"{run.config.get_text_config().hidden_size} numbers",
    }
    return f"{kept[told.tier]} a token by the dense model, for {', '.join(run.recipe.cached_arms)}"


def check(run: Run) -> None:
    """Check that some arm reads the cache, and that the tier serves its temperature."""
    if not run.recipe.cached_arms:
        raise InputError("cache_teacher has no reader: no arm of `recover` has method kd with its teacher cached")
    for name, arm in run.recipe.cached_arms.items():
        check_arm_serves(codec(run), name, arm)


def check_arm_serves(told: Codec, name: str, arm: ArmSection) -> None:
    """Check that a cache says what an arm compares.

    Raises:
        InputError: it is of another temperature, a sample where the divergence is not linear in the teacher, or
            without the states that the arm compares; or the arm wants another teacher.
    """
    if arm.args.get("hidden_loss", "auto") not in ("auto", "none"):
        raise InputError(
            f"recover.{name}.args.hidden_loss is {arm.args['hidden_loss']!r}, and a teacher cache holds no such "
            "states; set it to none, or the arm's teacher_cache to false"
        )
    temperature, divergence = arm.args.get("temperature", 1.0), arm.args.get("divergence", "forward_kl")
    if told.temperature is not None and temperature != told.temperature:
        hint = "cache_teacher.temperature" if isinstance(told, TopK) else "cache_teacher.tier to topk or hidden"
        raise InputError(
            f"recover.{name}.args.temperature is {temperature}, and cache_teacher.tier {told.tier} serves "
            f"{told.temperature}; set {hint}"
        )
    if isinstance(told, Sampled) and divergence != "forward_kl":
        raise InputError(
            f"recover.{name}.args.divergence is {divergence!r}, and a sampled cache serves forward_kl only; set "
            "cache_teacher.tier to topk or hidden"
        )
    try:
        check_serves(told, KDConfig("unused", **(arm.args | {"use_cpu": True, "bf16": False})))
    except InputError as error:
        raise InputError(f"recover.{name}.args.{error}; or set the arm's teacher_cache to false") from error


STAGE = Stage("cache_teacher", inputs, settings, work, plan, check=check)
