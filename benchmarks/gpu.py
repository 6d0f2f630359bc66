"""Everything that needs a GPU to be told, in one command, for a machine that has one or two.

    python benchmarks/gpu.py --output OUT [--model FOLDER] [--parts surgery SFT ...]
    python benchmarks/gpu.py --output OUT --device cpu --tiny      # the rehearsal, seconds, no figures of interest

Runs the tests that use the accelerator, surgery and scoring in bfloat16, steps of SFT, KD, cached KD and QLoRA with
their peak memory and tokens a second, and generation of the dense and the pruned model (SmolLM2-135M-Instruct by
default, which comes in a wheel); with two GPUs KD by FSDP2 and by ZeRO-3. What is missing is said and left out: QLoRA
needs the wheel of bitsandbytes, ZeRO-3 that of deepspeed. Writes `OUT/gpu.json` and prints a table; ends with 1 if a
part failed.
"""

import argparse
import gc
import importlib.metadata
import json
import platform
import sys
import tempfile
import time
from pathlib import Path

import torch
from gpu_parts import PARTS, Figures, Machine, Skipped
from loader_models import write_dense


PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "deepspeed")
MEASURED, SKIPPED, FAILED = "measured", "skipped", "failed"


def environment(device: str) -> Figures:
    """Return the machine and the versions of its packages; None for one that is missing."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    found: Figures = {"device": device, "python": platform.python_version(), "packages": versions}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        capability = f"{properties.major}.{properties.minor}"
        found |= {"gpu": properties.name, "gpus": torch.cuda.device_count(), "memory_bytes": properties.total_memory}
        found |= {"capability": capability, "cuda": torch.version.cuda}
    return found


def dense_model(asked: argparse.Namespace, folder: Path) -> Path:
    """Return the dense model's folder: random and tiny, the given one, or SmolLM2 in bfloat16."""
    if asked.tiny:
        return write_dense("llama", folder / "dense")
    if asked.model:
        return asked.model.resolve()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trl_prune.smollm2 import smollm2

    AutoModelForCausalLM.from_pretrained(smollm2(), dtype=torch.bfloat16).save_pretrained(folder / "dense")
    AutoTokenizer.from_pretrained(smollm2()).save_pretrained(folder / "dense")
    return folder / "dense"


def do(name: str, machine: Machine) -> Figures:
    """Return the figures of a part, or why there are none."""
    start = time.perf_counter()
    try:
        figures = PARTS[name](machine)
        figures["status"] = FAILED if figures.pop("failed", False) else MEASURED
    except Skipped as reason:
        figures = {"status": SKIPPED, "reason": str(reason)}
    except Exception as error:  # the other parts go on
        lines = str(error).strip().splitlines() or [""]
        figures = {"status": FAILED, "reason": f"{type(error).__name__}: {lines[0]}"}
    gc.collect()
    torch.cuda.empty_cache()
    return figures | {"all_seconds": time.perf_counter() - start}


def table(parts: dict[str, Figures]) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| part | result | seconds | tokens/s | peak memory, GB | more |", "|---|---|---|---|---|---|"]
    shown = {"status", "seconds", "tokens_per_second", "peak_bytes", "all_seconds", "reason"}
    for name, figures in parts.items():
        seconds = f"{figures.get('seconds', figures['all_seconds']):.1f}"
        speed = f"{figures['tokens_per_second']:,.0f}" if "tokens_per_second" in figures else ""
        memory = f"{figures['peak_bytes'] / 1e9:.2f}" if figures.get("peak_bytes") else ""
        more = [figures["reason"].replace("|", "/")] if "reason" in figures else []
        more += [f"{key.replace('_', ' ')} {value:.4g}" for key, value in figures.items() if key not in shown]
        lines.append(f"| {name} | {figures['status']} | {seconds} | {speed} | {memory} | {', '.join(more)} |")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU; rehearse with --device cpu --tiny")
    return asked


def main() -> None:
    """Do every part, write the figures and print the table."""
    asked = arguments()
    asked.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=asked.output) as scratch:
        folder = Path(scratch).resolve()
        machine = Machine(asked.device, asked.tiny, dense_model(asked, folder), folder)
        parts: dict[str, Figures] = {}
        for name in asked.parts:
            print(f"{name} ...", file=sys.stderr, flush=True)
            parts[name] = do(name, machine)
            found = {"environment": environment(asked.device), "parts": parts}
            (asked.output / "gpu.json").write_text(json.dumps(found, indent=2))
    print(table(parts))
    sys.exit(any(figures["status"] == FAILED for figures in parts.values()))


if __name__ == "__main__":
    main()
