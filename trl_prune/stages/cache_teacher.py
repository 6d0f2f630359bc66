"""cache_teacher: the dense model reads the training rows once, so that arms distil without loading it."""

import json
import sys
import time
from pathlib import Path

from torch.utils.data import ConcatDataset

from trl_prune.checkpoints import load_tokenizer
from trl_prune.data.sharing import ProcessShare
from trl_prune.data.teacher import LazyTeacher
from trl_prune.data.teacher_cache.codecs import CODECS, Codec, Sampled, TopK, codec_settings
from trl_prune.data.teacher_cache.encoding import CacheSpec
from trl_prune.data.teacher_cache.writing import write_cache, write_shards
from trl_prune.errors import InputError
from trl_prune.recipe import ArmSection, Recipe
from trl_prune.runs.arms import training_args
from trl_prune.runs.artifacts import StageOutput
from trl_prune.runs.context import Run
from trl_prune.runs.sharing import share_main, single_process_share, write_in_processes
from trl_prune.runs.stage import Stage
from trl_prune.runs.training_rows import rows_hash, training_rows
from trl_prune.trainers.kd.cache_checks import check_codec
from trl_prune.trainers.kd.config import KDConfig
from trl_prune.trainers.preparation import preparation_args, prepare_rows


CACHE = "cache"
# Training arguments that change where rows are prepared, but not the rows.
NOT_HASHED = ("use_cpu", "dataset_num_proc")


def codec(run: Run) -> Codec:
    """Return how the recipe stores the teacher's predictions."""
    section = run.recipe.cache_teacher
    arguments = {
        "sampled": {"draws": section.draws, "seed": run.recipe.seed},
        "topk": {"k": section.top_k, "temperature": section.temperature},
        "hidden": {},
    }
    return CODECS[section.tier](**arguments[section.tier])


def preparations(run: Run) -> dict[str, ArmSection]:
    """Return one of the cached arms for each way to prepare rows, keyed by what determines the prepared rows."""
    arms: dict[str, ArmSection] = {}
    for arm in run.recipe.cached_arms.values():
        arms.setdefault(_preparation_key(run, arm), arm)
    return arms


def _preparation_key(run: Run, arm: ArmSection) -> str:
    args = preparation_args(training_args(run, arm, run.dtype))
    hashed = {name: value for name, value in args.items() if name not in NOT_HASHED}
    rows = [value for value in (arm.rows, arm.selection) if value is not None]
    return json.dumps([arm.data, hashed, *rows], sort_keys=True, default=str)


def cache_spec(run: Run) -> CacheSpec:
    """Return the rows, the teacher and the codec of the cache."""
    tokenizer = load_tokenizer(run.teacher_dir)  # not the run's own: preparing rows may change its special tokens
    prepared = []
    for arm in preparations(run).values():
        args = training_args(run, arm, run.dtype)
        prepared.append(prepare_rows(training_rows(run, arm, args).rows, args, tokenizer, answers_only=True))
    teacher = LazyTeacher(run.load_teacher, tokenizer, run.teacher_fingerprint)
    return CacheSpec(ConcatDataset(prepared), teacher, codec(run), run.recipe.cache_teacher.batch_size)


def write_share(run: Run, folder: Path, share: ProcessShare) -> None:
    """Write one process's share of the shards."""
    write_shards(folder / CACHE, cache_spec(run), share)


def execute(run: Run, part: str, folder: Path) -> StageOutput:  # noqa: ARG001
    """Write the cache, reusing the shards that an interrupted attempt wrote."""
    start = time.perf_counter()
    write_in_processes(run, __name__, folder)
    metadata = write_cache(folder / CACHE, cache_spec(run), single_process_share("cache teacher", "shard")).metadata
    size = sum(path.stat().st_size for path in (folder / CACHE).glob("shard-*"))
    metrics = {
        "tier": run.recipe.cache_teacher.tier,
        "sequences": metadata.sequences,
        "tokens": metadata.tokens,
        "positions": metadata.positions,
        "bytes_per_position": size / metadata.positions,
        "flops": metadata.tokens * run.size().flops_per_token,
        "plan": metadata.plan,
    }
    # The teacher's rounding depends on the machine, so shards get no fingerprint; `plan` is a hash of what they hold.
    return StageOutput({"cache": CACHE}, metrics, {"seconds": time.perf_counter() - start}, frozenset({"cache"}))


def inputs(run: Run, part: str) -> dict[str, str]:  # noqa: ARG001
    """Return the fingerprints of the dense model and the rows."""
    arms = {
        f"{arm.data} {arm.selection}" if arm.selection else arm.data: arm for arm in run.recipe.cached_arms.values()
    }
    return {"dense": run.teacher_fingerprint} | {f"rows {name}": rows_hash(run, arms[name]) for name in sorted(arms)}


def settings(run: Run, part: str) -> dict:  # noqa: ARG001
    """Return the settings that determine the cache."""
    values = {"codec": codec_settings(codec(run)), "rows": sorted(preparations(run)), "dtype": run.dtype}
    return values | run.recipe.template_settings


def describe(run: Run, part: str) -> str:  # noqa: ARG001
    """Return what is stored per token, and for which arms."""
    section = run.recipe.cache_teacher
    stored = {
        "sampled": f"{section.draws} draws",
        "topk": f"{section.top_k} likeliest ids",
        "hidden": f"{run.config.get_text_config().hidden_size} numbers",
    }
    return f"{stored[section.tier]} per token by the dense model, for {', '.join(run.recipe.cached_arms)}"


def is_configured(recipe: Recipe) -> bool:
    """Return whether an arm reads the cache."""
    return bool(recipe.cached_arms)


def needs(recipe: Recipe) -> list[str]:
    """Return the stages that select the rows, and rewrite them if an arm that reads the cache trains on such."""
    rewrites = any(arm.uses_rewritten for arm in recipe.cached_arms.values())
    return ["select"] * (recipe.select is not None) + ["rewrite"] * rewrites


def check(run: Run) -> None:
    """Check that an arm reads the cache, and that the tier holds what each arm compares."""
    if not run.recipe.cached_arms:
        raise InputError("no arm reads the cache: none of `recover` has `method: kd` with its teacher cached")
    for name, arm in run.recipe.cached_arms.items():
        check_arm_serves(codec(run), name, arm)


def check_arm_serves(codec: Codec, name: str, arm: ArmSection) -> None:
    """Check that a cache holds what an arm compares.

    Raises:
        InputError: it has another temperature, is a sample where the divergence is not linear in the teacher's
            probabilities, or lacks the states that the arm compares; or the arm corrects its teacher.
    """
    if arm.args.get("hidden_loss", "auto") not in ("auto", "none"):
        raise InputError(
            f"recover.{name}.args.hidden_loss is {arm.args['hidden_loss']!r}, and a teacher cache holds no such "
            "states; set it to none, or the arm's teacher_cache to false"
        )
    temperature, divergence = arm.args.get("temperature", 1.0), arm.args.get("divergence", "forward_kl")
    if codec.temperature is not None and temperature != codec.temperature:
        hint = "cache_teacher.temperature" if isinstance(codec, TopK) else "cache_teacher.tier to topk or hidden"
        raise InputError(
            f"recover.{name}.args.temperature is {temperature}, and cache_teacher.tier {codec.tier} serves "
            f"{codec.temperature}; set {hint}"
        )
    if isinstance(codec, Sampled) and divergence != "forward_kl":
        raise InputError(
            f"recover.{name}.args.divergence is {divergence!r}, and a sampled cache serves forward_kl only; set "
            "cache_teacher.tier to topk or hidden"
        )
    try:
        check_codec(codec, KDConfig("unused", **(arm.args | {"learning_rate": 0.0, "use_cpu": True, "bf16": False})))
    except InputError as error:
        raise InputError(f"recover.{name}.args.{error}; or set the arm's teacher_cache to false") from error


STAGE = Stage(
    "cache_teacher",
    inputs,
    settings,
    execute,
    describe,
    needs=needs,
    is_configured=is_configured,
    check=check,
)

if __name__ == "__main__":
    sys.exit(share_main("cache_teacher", write_share))
