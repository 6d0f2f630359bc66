"""Which dtype a processor computes in."""

from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig


# What of a processor multiplies in bfloat16, as torch and Linux name it, and as its makers do.
BFLOAT16_UNITS = {"avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX", "bf16": "BF16", "sve_bf16": "SVE-BF16"}
CPU_INFO = Path("/proc/cpuinfo")


def native_dtype(device: str) -> tuple[str, str]:
    """Return the dtype that a run with `dtype: auto` uses, and the reason in words.

    bfloat16 where the processor computes in it, else float32: emulated bfloat16 is many times slower. What the
    processor has does not depend on how busy it is, so the same machine always gives the same dtype.

    Args:
        device: `cuda` or `cpu`.

    Returns:
        `bfloat16` or `float32`, and which of the processor's abilities decided.
    """
    import torch

    if device == "cuda":
        what = "CUDA capability {}.{}".format(*torch.cuda.get_device_capability())
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bfloat16", what) if native else ("float32", f"{what} has no bfloat16")
    features = _cpu_features()
    units = [name for key, name in BFLOAT16_UNITS.items() if key in features]
    return ("bfloat16", f"the processor has {units[0]}") if units else ("float32", "the processor has no bfloat16")


def loading_dtype(config: "PreTrainedConfig", device: str) -> "torch.dtype | str":
    """Return the dtype to load a checkpoint in where none is asked for: `auto` for its own.

    Half precision becomes float32 on a processor that would emulate it.

    Args:
        config: the checkpoint's.
        device: the type of the device it goes to.
    """
    import torch

    is_emulated = device == "cpu" and native_dtype("cpu")[0] == "float32"
    return torch.float32 if is_emulated and config.dtype in (torch.bfloat16, torch.float16) else "auto"


def _cpu_features() -> set[str]:
    import torch

    capabilities = getattr(torch.cpu, "get_capabilities", None)  # since torch 2.12
    if capabilities is not None:
        return {name for name, has in capabilities().items() if has is True}
    return set(CPU_INFO.read_text().split()) if CPU_INFO.is_file() else set()
