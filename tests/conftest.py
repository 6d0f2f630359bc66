"""Tiny random models of real families and a byte-level tokenizer: no network, seconds."""

import os


# Before torch is imported: workers of pytest-xdist share the cores, one thread each. Nothing is asked of the hub.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast


CHATML = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' }}{%- if message.role == 'assistant' %}"
    "{% generation %}{{- message.content + '<|im_end|>' }}{% endgeneration %}{%- else %}"
    "{{- message.content + '<|im_end|>' }}{%- endif %}{{- '\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
SPECIALS = ["<|im_start|>", "<|im_end|>", "<|pad|>"]
VOCABULARY = 256 + len(SPECIALS)
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
# What a family needs besides the sizes; families under the names of their own keys.
EXTRAS = {
    "glm": {"head_dim": 8},
    "glm4": {"head_dim": 8},
    "helium": {"head_dim": 8},
    "ministral": {"head_dim": 8},
    "seed_oss": {"head_dim": 8},
    "ernie4_5": {"head_dim": 8},
    "gemma": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "sliding_window": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": 8},
    "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 256, "n_inner": 48},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "qwen3": {"head_dim": 8},
    "cwm": {"head_dim": 8, "bos_token_id": 1},
    "hunyuan_v1_dense": {"head_dim": 8},
    "jais2": {"head_dim": 8},
    "ministral3": {"head_dim": 8},
    "nemotron": {"head_dim": 8},
    "vaultgemma": {"head_dim": 8, "sliding_window": 8},
    "mixtral": {"num_local_experts": 4},
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "sliding_window": 8},
    "phimoe": {"num_local_experts": 4},
    "minimax_m2": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "rotary_dim": 4},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "flex_olmo": {"num_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 48,
        "mlp_only_layers": [2],
    },
    "qwen3_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "decoder_sparse_step": 2,
        "head_dim": 8,
    },
    "smollm3": {"no_rope_layer_interval": 2},
}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer that has one token for each byte, and a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        additional_special_tokens=SPECIALS[:1],
        eos_token=SPECIALS[1],
        pad_token=SPECIALS[2],
        chat_template=CHATML,
    )


def tiny_config(family: str, **changes: object) -> PreTrainedConfig:
    """Return the config of a tiny model of a family."""
    tokenizer = tiny_tokenizer()
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    return AutoConfig.for_model(family, **(SIZES | ids | EXTRAS.get(family, {}) | changes))


def tiny_model(family: str, seed: int = 0, **changes: object) -> PreTrainedModel:
    """Return a random model of a family, in float32 and eval mode."""
    config = tiny_config(family, **changes)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():  # random models hardly change the stream; larger weights make each block matter
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embed" not in name:
                weight.mul_(4)
    return model


def save_tiny(folder: Path, family: str = "llama", **changes: object) -> Path:
    """Write a tiny checkpoint with tokenizer and licence and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tiny_model(family, **changes).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    (folder / "LICENSE").write_text("a licence\n")
    return folder


@pytest.hookimpl(trylast=True)  # when `-m` has deselected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the files that take longest first, then those with most tests: while the last one runs, cores are idle."""
    minutes, tests = Counter(), Counter(item.path for item in items)
    for item in items:
        slow = item.get_closest_marker("slow")
        minutes[item.path] += slow.kwargs.get("minutes", 0) if slow else 0
    items.sort(key=lambda item: (-minutes[item.path], -tests[item.path]))


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama checkpoint folder, shared and only read."""
    return save_tiny(tmp_path_factory.mktemp("dense") / "llama")


ROWS = [
    {
        "prompt": [{"role": "user", "content": f"What is {number} plus {number + 1}?"}],
        "completion": [{"role": "assistant", "content": f"It is {2 * number + 1}. The answer is {2 * number + 1}."}],
        "answer_type": "number",
        "answer": str(2 * number + 1),
        "capability": "sums" if number % 2 else "odd sums",
    }
    for number in range(12)
]


@pytest.fixture
def rows() -> list[dict]:
    return [dict(row) for row in ROWS]


def rewrite_tensors(folder, change):
    """Apply a change to the tensors of a saved checkpoint."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
