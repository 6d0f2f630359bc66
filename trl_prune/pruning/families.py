"""Model families as data: one row per model type has everything that surgery, importance and search need.

A row gives the axis of every dimension of each weight; an axis is named by the config key that holds its length. The
number of tensor rows per unit follows from the shape: `q_proj` with 512 rows and 8 heads has 64 rows per head.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from importlib.resources import files

from trl_prune.errors import InputError, closest


LAYERS, HIDDEN, NEURONS = "num_hidden_layers", "hidden_size", "intermediate_size"
HEADS, KV_HEADS, EXPERTS = "num_attention_heads", "num_key_value_heads", "num_experts"
AXES = (LAYERS, HIDDEN, NEURONS, HEADS, KV_HEADS, EXPERTS)
# Short names for the table, one letter per axis; a dimension that concatenates several axes is "A+K+K". The other
# dimensions are never cut: the vocabulary (V also stands for any other fixed length), head_dim and experts' neurons.
L, H, F, A, K, E = "L", "H", "F", "A", "K", "E"
V, HEAD_DIM, EXPERT_NEURONS = "vocabulary", "head_dim", "expert neurons"
AXIS_NAMES = {L: LAYERS, H: HIDDEN, F: NEURONS, A: HEADS, K: KV_HEADS, E: EXPERTS}

Dims = tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """Weight names and config keys of a model type.

    Attributes:
        weights: the axes of each weight's dimensions, by a pattern that matches the end of its name.
        blocks_prefix: prefix of the decoder blocks' tensor names, before the block index.
        module_prefix: the same of their names in memory, where transformers stores them under others.
        per_layer_keys: config keys that hold one entry per decoder block, sliced with the blocks.
        config_keys: the config key of an axis, where `config.attribute_map` does not give it.
        indexed_names: patterns whose first group is the index of a unit in a tensor name, with the unit's axis.
        hidden_size_keys: config keys that must equal `hidden_size`.
        expansion_keys: config keys whose product with `hidden_size` stays, such as the width of a state-space mixer.
        head_keys: config keys that must equal `num_attention_heads`.
        reads_head_dim: the model reads `head_dim` from its config; otherwise head_dim is hidden_size /
            num_attention_heads, and heads and hidden channels can only be cut together.
        transposed: linear weights are stored as `(in, out)`, as in GPT-2's Conv1D.
        norm_plus_one: norms store their weight minus one, as in Gemma.
        scales_embedding: embeddings are multiplied by sqrt(hidden_size) in the forward pass.
        unsupported: axes that the format cannot express, each with the reason.
    """

    weights: Mapping[str, Dims] = field(repr=False)
    blocks_prefix: str = "model.layers"
    module_prefix: str = ""
    per_layer_keys: tuple[str, ...] = ("layer_types",)
    config_keys: Mapping[str, str] = field(default_factory=dict)
    indexed_names: Mapping[str, str] = field(default_factory=dict)
    hidden_size_keys: tuple[str, ...] = ()
    expansion_keys: tuple[str, ...] = ()
    head_keys: tuple[str, ...] = ()
    reads_head_dim: bool = True
    transposed: bool = False
    norm_plus_one: bool = False
    scales_embedding: bool = False
    unsupported: Mapping[str, str] = field(default_factory=dict)

    def dims(self, name: str) -> Dims | None:
        """Return the short axis names of a tensor's dimensions, or None if the row has no entry for the tensor.

        A bias has the output axis of its weight.
        """
        module, _, parameter = name.rpartition(".")
        dims = _match(tuple(self.weights.items()), module if parameter in ("weight", "bias") else name)
        if dims is None or parameter != "bias" or len(dims) == 1:
            return dims
        return dims[-1:] if self.transposed else dims[:1]

    @cached_property
    def axes(self) -> frozenset[str]:
        """The axes that can be cut."""
        parts = {part for dims in self.weights.values() for dim in dims for part in dim.split("+")}
        in_weights = {AXIS_NAMES[letter] for letter in parts & AXIS_NAMES.keys()}
        return frozenset({LAYERS} | in_weights) - self.unsupported.keys()

    def dim_axes(self, name: str) -> tuple[tuple[str, ...], ...]:
        """Return the full names of the axes that each dimension of a tensor concatenates."""
        return tuple(tuple(AXIS_NAMES.get(part, part) for part in dim.split("+")) for dim in self.dims(name) or ())

    def config_key(self, axis: str, attribute_map: Mapping[str, str]) -> str:
        """Return the key that holds the axis's length in config.json."""
        return self.config_keys.get(axis, attribute_map.get(axis, axis))


@cache
def _match(weights: tuple[tuple[str, Dims], ...], name: str) -> Dims | None:
    return next((dims for pattern, dims in weights if re.search(rf"(^|\.)({pattern})$", name)), None)


EMBEDDINGS = {r"embed_tokens|lm_head": (V, H), r"inv_freq": (HEAD_DIM,)}
ATTENTION = {r"q_proj": (A, H), r"[kv]_proj": (K, H), r"o_proj": (H, A)}
GATED_MLP = {r"gate_proj|up_proj": (F, H), r"down_proj": (H, F)}
NORMS = {r"[qk]_norm|(query|key)_layernorm": (HEAD_DIM,), r"\w*norm": (H,)}
# Checkpoints store experts either one by one or stacked.
ROUTED_EXPERTS = {
    r"(mlp|block_sparse_moe)\.(gate|router|router\.layer)": (E, H),
    r"e_score_correction_bias": (E,),
    r"experts\.\d+\.(gate_proj|up_proj|w1|w3)": (EXPERT_NEURONS, H),
    r"experts\.\d+\.(down_proj|w2)": (H, EXPERT_NEURONS),
    r"experts\.gate_up_proj|input_linear": (E, EXPERT_NEURONS, H),
    r"experts\.down_proj|output_linear": (E, H, EXPERT_NEURONS),
    r"shared_expert\.(gate_proj|up_proj)": (EXPERT_NEURONS, H),
    r"shared_expert\.down_proj": (H, EXPERT_NEURONS),
    r"shared_expert_gate": (V, H),
    r"experts\.\w+_(blocks|scales)": (E,),
}
INDEXED_EXPERTS = {r"\.experts\.(\d+)\.": EXPERTS}
NO_EXPERT_NEURONS = {
    NEURONS: "its neurons are inside experts, and one list per layer cannot name the kept neurons of each expert"
}
NORMS_OVER_HEADS = {r"q_norm": (A,), r"k_norm": (K,)}

LLAMA = Family(EMBEDDINGS | ATTENTION | GATED_MLP | NORMS)
UNGATED = {r"up_proj|c_fc|fc1|dense_h_to_4h": (F, H), r"down_proj|c_proj|fc2|dense_4h_to_h": (H, F)}
UNGATED_LLAMA = replace(LLAMA, weights=EMBEDDINGS | ATTENTION | UNGATED | NORMS)
GEMMA = replace(LLAMA, norm_plus_one=True, scales_embedding=True)
PHI = replace(LLAMA, weights=EMBEDDINGS | ATTENTION | UNGATED | {r"dense": (H, A), r"\w*layernorm": (H,)})
PHI3 = replace(LLAMA, weights={r"qkv_proj": ("A+K+K", H), r"gate_up_proj": ("F+F", H)} | LLAMA.weights)
GLM = replace(LLAMA, weights={r"gate_up_proj": ("F+F", H)} | LLAMA.weights)
OLMO2 = replace(LLAMA, weights=NORMS_OVER_HEADS | LLAMA.weights)
COHERE = replace(LLAMA, weights={r"q_norm": (A, HEAD_DIM), r"k_norm": (K, HEAD_DIM)} | LLAMA.weights)
STABLELM = replace(
    LLAMA,
    weights={r"[qk]_layernorm\.norms\.\d+": (HEAD_DIM,)} | LLAMA.weights,
    indexed_names={r"\.q_layernorm\.norms\.(\d+)\.": HEADS, r"\.k_layernorm\.norms\.(\d+)\.": KV_HEADS},
    reads_head_dim=False,
)
APERTUS = replace(LLAMA, weights={r"act_fn\.\w+": (V,)} | LLAMA.weights)
GPT2 = Family(
    {
        r"wte|wpe|lm_head": (V, H),
        r"attn\.c_attn": (H, "A+A+A"),
        r"attn\.c_proj": (A, H),
        r"attn\.(bias|masked_bias)|attn": (V, V, V, V),
        r"mlp\.c_fc": (H, F),
        r"mlp\.c_proj": (F, H),
        r"ln_\w": (H,),
    },
    blocks_prefix="transformer.h",
    per_layer_keys=(),
    config_keys={NEURONS: "n_inner"},
    reads_head_dim=False,
    transposed=True,
)
GPT_NEOX = Family(
    {
        r"embed_in|embed_out|lm_head": (V, H),
        r"query_key_value": (A, H),
        r"attention\.dense": (H, A),
        r"dense_h_to_4h": (F, H),
        r"dense_4h_to_h": (H, F),
        r"attention\.(bias|masked_bias)|attention": (V, V, V, V),
        r"inv_freq": (HEAD_DIM,),
        r"\w*layernorm|final_layer_norm": (H,),
    },
    blocks_prefix="gpt_neox.layers",
    per_layer_keys=(),
    reads_head_dim=False,
)
PERSIMMON = replace(
    GPT_NEOX,
    weights={r"embed_tokens": (V, H), r"[qk]_layernorm": (HEAD_DIM,), r"self_attn\.dense": (H, A)} | GPT_NEOX.weights,
    blocks_prefix="model.layers",
)
OPT = Family(
    {
        r"embed_tokens|embed_positions|lm_head": (V, H),
        r"[qkv]_proj": (A, H),
        r"out_proj": (H, A),
        r"fc1": (F, H),
        r"fc2": (H, F),
        r"\w*layer_norm": (H,),
    },
    blocks_prefix="model.decoder.layers",
    per_layer_keys=(),
    config_keys={NEURONS: "ffn_dim"},
    hidden_size_keys=("word_embed_proj_dim",),
    reads_head_dim=False,
)
MIXTRAL = Family(
    ROUTED_EXPERTS | EMBEDDINGS | ATTENTION | NORMS, indexed_names=INDEXED_EXPERTS, unsupported=NO_EXPERT_NEURONS
)
QWEN_MOE = replace(
    MIXTRAL,
    weights=ROUTED_EXPERTS
    | EMBEDDINGS
    | ATTENTION
    | {r"gate_proj|up_proj": (EXPERT_NEURONS, H), r"down_proj": (H, EXPERT_NEURONS)}
    | NORMS,
)
SHARED_NEURONS = {r"shared_expert\.(gate_proj|up_proj)": (F, H), r"shared_expert\.down_proj": (H, F)}
QWEN_SHARED = replace(
    QWEN_MOE,
    weights=QWEN_MOE.weights | SHARED_NEURONS,
    config_keys={NEURONS: "shared_expert_intermediate_size"},
    unsupported={},
)
GPT_OSS = replace(
    MIXTRAL,
    weights={
        r"sinks": (A,),
        r"experts\.gate_up_proj": (E, H, EXPERT_NEURONS),
        r"experts\.down_proj": (E, EXPERT_NEURONS, H),
        r"experts\.gate_up_proj_bias": (E, EXPERT_NEURONS),
        r"experts\.down_proj_bias": (E, H),
    }
    | MIXTRAL.weights,
)

LLAMA_SHAPED = (
    "arcee", "cwm", "ernie4_5", "exaone4", "granite", "hunyuan_v1_dense", "jais2", "llama", "ministral", "ministral3",
    "mistral", "olmo", "qwen2", "qwen3", "seed_oss",
)  # fmt: skip
FAMILIES: dict[str, Family] = dict.fromkeys(LLAMA_SHAPED, LLAMA) | {
    "apertus": APERTUS,
    "cohere": COHERE,
    "cohere2": COHERE,
    "flex_olmo": replace(MIXTRAL, weights=NORMS_OVER_HEADS | MIXTRAL.weights),
    "gemma": GEMMA,
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "glm": GLM,
    "glm4": GLM,
    "gpt2": GPT2,
    "gpt_neox": GPT_NEOX,
    "gpt_oss": GPT_OSS,
    "granitemoe": replace(MIXTRAL, config_keys={EXPERTS: "num_local_experts"}),
    "helium": replace(LLAMA, reads_head_dim=False),
    "minimax_m2": replace(MIXTRAL, weights=NORMS_OVER_HEADS | MIXTRAL.weights),
    "mixtral": MIXTRAL,
    "nemotron": replace(UNGATED_LLAMA, norm_plus_one=True),
    "olmo2": OLMO2,
    "olmo3": OLMO2,
    "olmoe": replace(MIXTRAL, weights=NORMS_OVER_HEADS | MIXTRAL.weights, reads_head_dim=False),
    "opt": OPT,
    "persimmon": PERSIMMON,
    "phi": PHI,
    "phi3": PHI3,
    "phimoe": replace(MIXTRAL, config_keys={EXPERTS: "num_local_experts"}),
    "qwen2_moe": QWEN_SHARED,
    "qwen3_moe": QWEN_MOE,
    "smollm3": replace(LLAMA, per_layer_keys=("layer_types", "no_rope_layers")),
    "stablelm": STABLELM,
    "starcoder2": UNGATED_LLAMA,
    "vaultgemma": GEMMA,
}


# Rows that were derived and proven in this process, for types without one (`prune.unproven`).
_REGISTERED: dict[str, "Family"] = {}


def family_of(model_type: str) -> Family:
    """Return the row of a model type: from the table, or derived and proven.

    Raises:
        InputError: the type has no row.
    """
    rows = FAMILIES | derived_rows() | _REGISTERED
    if model_type in rows:
        return rows[model_type]
    close = closest(model_type, rows)
    hint = f" (the nearest is {close!r})" if close else ""
    reason = derived()["refused"].get(model_type, "no row has been derived and proven for it")
    raise InputError(f"model type {model_type!r} cannot be pruned: {reason}{hint}; see `trl-prune models`")


def register(model_type: str, row: Family) -> None:
    """Make a row that was derived and proven in this process known to it."""
    _REGISTERED[model_type] = row


@contextmanager
def registered(model_type: str, row: Family) -> Iterator[None]:
    """Make a row known while it is proven."""
    register(model_type, row)
    try:
        yield
    finally:
        del _REGISTERED[model_type]


@cache
def derived() -> dict:
    """Return the record of what was derived and proven, which `trl_prune.pruning.deriving.record` writes.

    Returns:
        `rows`, by model type; `proven`, what of each type, those of the table as well; `refused`, the reason for each
        decoder type of transformers without a row; `transformers`, its version.
    """
    return json.loads((files("trl_prune.pruning") / "derived.json").read_text())


@cache
def derived_rows() -> dict[str, Family]:
    """Return the derived rows by model type."""
    return {name: _read_row(row) for name, row in derived()["rows"].items()}


def stored_row(row: Family) -> dict:
    """Return the fields of a row that differ from their defaults, as JSON holds them."""
    values = {entry.name: getattr(row, entry.name) for entry in fields(Family)}
    default = Family(weights={})
    return {name: value for name, value in values.items() if value != getattr(default, name)}


def _read_row(stored: Mapping) -> Family:
    # The longest pattern first, as it is the most particular: JSON has them by name.
    ordered = sorted(stored.get("weights", {}).items(), key=lambda entry: -len(entry[0]))
    weights = {pattern: tuple(dims) for pattern, dims in ordered}
    lists = {
        name: tuple(stored[name])
        for name in ("per_layer_keys", "hidden_size_keys", "expansion_keys", "head_keys")
        if name in stored
    }
    return Family(**(dict(stored) | {"weights": weights} | lists))
