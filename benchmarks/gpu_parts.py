"""What `gpu.py` does on a machine: each part returns its figures, or raises Skipped with the reason."""

import importlib.util
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from scoring import PeakMemory, all_axes, backbone, private_memory
from transformers import TrainerCallback, TrainerState, TrainingArguments

from trl_prune import cache_teacher, prune
from trl_prune.checkpoints import load_config, load_model, load_tokenizer
from trl_prune.data.batches import calibration_batches
from trl_prune.data.starter import starter_rows
from trl_prune.evaluation.speed import compare_speed
from trl_prune.pruning.families import LAYERS, NEURONS


ROOT = Path(__file__).parents[1]
# Tests whose models and trainers go to the accelerator where there is one.
TESTS = (
    "tests/evaluation/test_speed.py", "tests/evaluation/speculative", "tests/losses", "tests/pruning/importance",
    "tests/data/generation", "tests/stages/test_recover.py", "tests/trainers/arms", "tests/trainers/kd",
    "tests/trainers/teachers",
)  # fmt: skip
TINY_TESTS = ("tests/losses/test_positions.py",)
TEST_SECONDS, LAUNCH_SECONDS = 150, 120
WARM_UP_STEPS = 1
LAUNCHES = {"FSDP2": "fsdp2.yaml", "ZeRO-3": "zero3.yaml"}
Figures = dict[str, object]


class Skipped(Exception):
    """A part that this machine cannot do, with the reason."""


@dataclass(frozen=True)
class Machine:
    """Where the parts run, and how much they do.

    Attributes:
        device: `cuda` or `cpu`.
        tiny: whether this is the rehearsal, with little of everything.
        dense: the dense checkpoint.
        folder: for what is written.
    """

    device: str
    tiny: bool
    dense: Path
    folder: Path

    @property
    def dtype(self) -> str:
        """The dtype of the models: bfloat16 on an accelerator, float32 in the rehearsal."""
        return "float32" if self.device == "cpu" else "bfloat16"

    @property
    def student(self) -> Path:
        """The pruned checkpoint, which the surgery writes."""
        return self.folder / "student"

    def rows(self) -> list[dict]:
        """Return the training rows, which differ in length."""
        return starter_rows()[: 8 if self.tiny else 128]

    def training_args(self) -> dict[str, object]:
        """Return the arguments of every trainer: some steps, without a checkpoint."""
        steps, batch, length = (3, 2, 512) if self.tiny else (12, 8, 512)
        return {
            "max_steps": steps,
            "per_device_train_batch_size": batch,
            "max_length": length,
            "use_cpu": self.device == "cpu",
            "bf16": self.device != "cpu",
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "include_num_input_tokens_seen": "non_padding",
        }


@contextmanager
def measured(device: str) -> Iterator[Figures]:
    """Measure what is done inside.

    Yields:
        `seconds` and `peak_bytes`, the most memory in use, of the accelerator or of the process; filled at the end.
    """
    figures: Figures = {}
    sampler = PeakMemory()
    if device == "cpu":
        sampler.start()
    else:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    yield figures
    if device != "cpu":
        torch.cuda.synchronize()
    figures["seconds"] = time.perf_counter() - start
    sampler.done = True
    megabytes = max(sampler.megabytes, private_memory())
    figures["peak_bytes"] = int(megabytes * 2**20) if device == "cpu" else torch.cuda.max_memory_allocated()


def run_tests(machine: Machine) -> Figures:
    """Run the tests that use the accelerator."""
    report = machine.folder / "tests.xml"
    paths = TINY_TESTS if machine.tiny else TESTS
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *paths]
    command += ["-n0"] if machine.tiny else []
    start = time.perf_counter()
    done = _run(command, TEST_SECONDS)
    if not report.exists():
        raise RuntimeError(f"pytest wrote no report: {_last_line(done)}")
    suite = next(ElementTree.parse(report).iter("testsuite")).attrib
    counts = {name: int(suite[name]) for name in ("tests", "failures", "errors", "skipped")}
    return {"seconds": time.perf_counter() - start, **counts, "failed": counts["failures"] + counts["errors"] > 0}


def _run(command: list[str], seconds: int) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"not finished within {seconds} s") from error


def _last_line(done: subprocess.CompletedProcess) -> str:
    return ((done.stderr or done.stdout).strip().splitlines() or ["no output"])[-1]


def surgery(machine: Machine) -> Figures:
    """Cut a sixth of the blocks and a quarter of the neurons; compare the result's tokens with those on the CPU.

    `same_tokens_as_float32` is the share of positions at which the device, in the models' dtype, has the likeliest
    token that the CPU has in float32.
    """
    config = load_config(machine.dense)
    layers, neurons = config.num_hidden_layers, config.intermediate_size
    keep = {LAYERS: list(range(layers - max(1, layers // 6)))}
    keep[NEURONS] = [list(range(neurons * 3 // 4))] * layers
    with measured("cpu") as figures:  # which holds a few tensors at a time
        prune(machine.dense, machine.student, keep=keep)
    ids = torch.arange(10, 10 + 64)[None]
    with torch.inference_mode():
        reference, found = (
            load_model(machine.student, dtype, device)(ids.to(device)).logits.argmax(-1).cpu()
            for dtype, device in (("float32", "cpu"), (machine.dtype, machine.device))
        )
    return figures | {"same_tokens_as_float32": float((reference == found).float().mean())}


def scoring(machine: Machine) -> Figures:
    """Score every axis, beside the decoder alone."""
    model = load_model(machine.dense, machine.dtype, machine.device)
    rows, tokenizer = Dataset.from_list(machine.rows()), load_tokenizer(machine.dense)
    batches = calibration_batches(rows, tokenizer, 8, 512)
    on_device = [{name: tensor.to(machine.device) for name, tensor in batch.items()} for batch in batches]
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    with torch.inference_mode():
        backbone(model, on_device[-1:])
        with measured(machine.device) as alone:
            backbone(model, on_device)
        with measured(machine.device) as figures:
            all_axes(model, batches)
    figures |= {"tokens_per_second": tokens / figures["seconds"], "x_decoder": figures["seconds"] / alone["seconds"]}
    return figures


class StepClock(TrainerCallback):
    """Stores the time and the tokens seen at the end of each step."""

    def __init__(self):
        self.ends: list[tuple[float, int]] = []

    def on_step_end(self, _: TrainingArguments, state: TrainerState, *__: object, **___: object) -> None:
        """Store."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append((time.perf_counter(), int(state.num_input_tokens_seen)))


def trained(machine: Machine, trainer: object) -> Figures:
    """Return the speed after the first step, the memory and the last loss of a training."""
    trainer.add_callback(clock := StepClock())
    with measured(machine.device) as figures:
        result = trainer.train()
    (start, before), (end, after) = clock.ends[WARM_UP_STEPS - 1], clock.ends[-1]
    figures |= {"tokens_per_second": (after - before) / (end - start), "loss": result.training_loss}
    return figures


def _student(machine: Machine) -> dict[str, object]:
    return {"model": str(machine.student), "train_dataset": Dataset.from_list(machine.rows())}


def sft(machine: Machine) -> Figures:
    """Train all weights on the rows."""
    from trl import SFTConfig, SFTTrainer

    init = {"dtype": machine.dtype}
    args = SFTConfig(str(machine.folder / "sft"), model_init_kwargs=init, **machine.training_args())
    return trained(machine, SFTTrainer(args=args, **_student(machine)))


def kd(machine: Machine, **changes: object) -> Figures:
    """Distil from the dense model, which runs beside the student."""
    from trl_prune import KDConfig, KDTrainer

    init = {"dtype": machine.dtype}
    args = KDConfig(str(machine.folder / "kd"), model_init_kwargs=init, **machine.training_args(), **changes)
    return trained(machine, KDTrainer(args=args, teacher_model=str(machine.dense), **_student(machine)))


def cached_kd(machine: Machine) -> Figures:
    """Distil from what is stored of the dense model's predictions."""
    rows, args = Dataset.from_list(machine.rows()), {"max_length": machine.training_args()["max_length"]}
    cache = machine.folder / "cache"
    with measured(machine.device) as writing:
        cache_teacher(machine.dense, rows, cache, args=args)
    return kd(machine, teacher_cache=str(cache)) | {"cache_seconds": writing["seconds"]}


def qlora(machine: Machine) -> Figures:
    """Train a LoRA adapter on 4-bit weights."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise Skipped("bitsandbytes is not installed")
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    four_bits = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, machine.dtype)
    )
    init = {"dtype": machine.dtype, "quantization_config": four_bits}
    args = SFTConfig(str(machine.folder / "qlora"), model_init_kwargs=init, **machine.training_args())
    peft = LoraConfig(r=8, target_modules="all-linear")
    return trained(machine, SFTTrainer(args=args, peft_config=peft, **_student(machine)))


def generation(machine: Machine) -> Figures:
    """Time the dense and the pruned model in turn."""
    models = [load_model(path, machine.dtype, machine.device) for path in (machine.dense, machine.student)]
    with torch.inference_mode():
        found = compare_speed(*models, seconds=0 if machine.tiny else 20)
    speeds = {"dense": found.dense, "pruned": found.small}
    figures = {f"{name}_decode_tokens_per_second": speed.decode.value for name, speed in speeds.items()}
    figures |= {f"{name}_prefill_tokens_per_second": speed.prefill.value for name, speed in speeds.items()}
    return figures | {"tokens_per_second": found.small.decode.value, "peak_bytes": found.small.peak_bytes}


def launched(machine: Machine, name: str) -> Figures:
    """Distil on two GPUs with a configuration of examples/accelerate."""
    if machine.device == "cpu" or torch.cuda.device_count() < 2:
        raise Skipped(f"needs 2 GPUs; here are {torch.cuda.device_count()}")
    if name == "ZeRO-3" and importlib.util.find_spec("deepspeed") is None:
        raise Skipped("deepspeed is not installed")
    rows = machine.folder / "rows.jsonl"
    Dataset.from_list(machine.rows()).to_json(rows)
    config = ROOT / "examples" / "accelerate" / LAUNCHES[name]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config), "--num_processes", "2"]
    script = [str(ROOT / "examples" / "kd_trainer.py"), machine.student, rows, machine.folder / name, machine.dense]
    start = time.perf_counter()
    done = _run(launch + list(map(str, script)), LAUNCH_SECONDS)
    if done.returncode:
        raise RuntimeError(_last_line(done))
    return {"seconds": time.perf_counter() - start}


PARTS = {
    "tests": run_tests,
    "surgery": surgery,
    "scoring": scoring,
    "SFT": sft,
    "KD": kd,
    "cached KD": cached_kd,
    "QLoRA": qlora,
    "generation, pruned": generation,
    "FSDP2": lambda machine: launched(machine, "FSDP2"),
    "ZeRO-3": lambda machine: launched(machine, "ZeRO-3"),
}
