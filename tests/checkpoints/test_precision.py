"""`dtype: auto` is decided by what the processor has."""

import pytest
import torch

from trl_prune.checkpoints import native_dtype, precision


@pytest.mark.parametrize(
    ("features", "dtype", "reason"),
    [
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, "float32", "the processor has no bfloat16"),
        ({"avx512_bf16": True}, "bfloat16", "the processor has AVX512-BF16"),
        ({"amx_bf16": True}, "bfloat16", "the processor has AMX"),
        ({"neon": True, "bf16": True, "architecture": "aarch64"}, "bfloat16", "the processor has BF16"),
    ],
)
def test_a_cpu_is_asked_for_its_units(monkeypatch, features, dtype, reason):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    assert native_dtype("cpu") == (dtype, reason)


@pytest.mark.parametrize(("flags", "dtype"), [("sse avx512_bf16 avx2", "bfloat16"), ("sse avx2", "float32")])
def test_linux_is_asked_where_torch_cannot_tell(monkeypatch, tmp_path, flags, dtype):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(precision, "CPU_INFO", tmp_path / "cpuinfo")
    assert native_dtype("cpu")[0] == dtype


@pytest.mark.parametrize(("capability", "native", "dtype"), [((8, 0), True, "bfloat16"), ((7, 5), False, "float32")])
def test_a_gpu_is_asked_for_its_capability(monkeypatch, capability, native, dtype):
    """A Turing GPU emulates bfloat16."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation
    )
    assert native_dtype("cuda")[0] == dtype


def test_the_same_machine_gives_the_same_answer():
    assert len({native_dtype("cpu") for _ in range(3)}) == 1
