"""Model families as data: one row says all that surgery, importance and search need to know of a model type.

A row gives, for each weight, the axis of every dimension; an axis is named by the config key that holds its length.
How many rows of a tensor one unit takes follows from its shape: `q_proj` with 512 rows and 8 heads has 64 a head.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

from trl_prune.errors import InputError


LAYERS, HIDDEN, NEURONS = "num_hidden_layers", "hidden_size", "intermediate_size"
HEADS, GROUPS, EXPERTS = "num_attention_heads", "num_key_value_heads", "num_experts"
AXES = (LAYERS, HIDDEN, NEURONS, HEADS, GROUPS, EXPERTS)
# Short names for the table, one letter an axis; a dimension made of several axes behind each other is "A+K+K".
H, F, A, K, E, V, HEAD_DIM, EXPERT_NEURONS = "H", "F", "A", "K", "E", "vocabulary", "head_dim", "expert neurons"
LETTERS = {H: HIDDEN, F: NEURONS, A: HEADS, K: GROUPS, E: EXPERTS}

Dims = tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """How a model type names its parts in a checkpoint.

    Attributes:
        weights: the axes of each weight, by a pattern that the last parts of its name match.
        blocks: the prefix of the decoder blocks' tensors, before the block's number.
        per_layer: config keys that hold one entry per decoder block, sliced with the blocks.
        keys: the config key of an axis where `config.attribute_map` does not lead to it.
        numbered: patterns whose group is the number of a unit in a tensor's name, with the unit's axis.
        as_hidden: config keys that must stay equal to `hidden_size` where they were.
        head_dim_free: the model reads `head_dim`; else it is hidden_size / num_attention_heads, and heads and hidden
            channels can only go together.
        transposed: linear weights are stored `(in, out)`, as GPT-2's Conv1D does.
        norm_plus_one: norms store their weight minus one, as Gemma's.
        scales_embedding: embeddings are multiplied by sqrt(hidden_size) in the forward pass.
        sparse_layers: the config says by index or interval which blocks have experts (Qwen).
        refused: axes that the format cannot express, each with the reason.
    """

    weights: Mapping[str, Dims] = field(repr=False)
    blocks: str = "model.layers"
    per_layer: tuple[str, ...] = ("layer_types",)
    keys: Mapping[str, str] = field(default_factory=dict)
    numbered: Mapping[str, str] = field(default_factory=dict)
    as_hidden: tuple[str, ...] = ()
    head_dim_free: bool = True
    transposed: bool = False
    norm_plus_one: bool = False
    scales_embedding: bool = False
    sparse_layers: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)

    def dims(self, name: str) -> Dims | None:
        """Return the axes of a tensor's dimensions, or None where the row does not know the tensor.

        A bias has the axis of its weight's output.
        """
        stem, _, kind = name.rpartition(".")
        dims = _match(tuple(self.weights.items()), stem if kind in ("weight", "bias") else name)
        if dims is None or kind != "bias" or len(dims) == 1:
            return dims
        return dims[-1:] if self.transposed else dims[:1]

    @cached_property
    def axes(self) -> frozenset[str]:
        """The axes of the row's weights that can be cut."""
        letters = {part for dims in self.weights.values() for dim in dims for part in dim.split("+")}
        return frozenset({LAYERS} | {LETTERS[letter] for letter in letters & LETTERS.keys()}) - self.refused.keys()

    def axis_dims(self, name: str) -> tuple[tuple[str, ...], ...]:
        """Return for each dimension of a tensor the axes it is made of, by their full names."""
        return tuple(tuple(LETTERS.get(part, part) for part in dim.split("+")) for dim in self.dims(name) or ())

    def key(self, axis: str, attribute_map: Mapping[str, str]) -> str:
        """Return the key of an axis in config.json."""
        return self.keys.get(axis, attribute_map.get(axis, axis))


@cache
def _match(weights: tuple[tuple[str, Dims], ...], stem: str) -> Dims | None:
    return next((dims for pattern, dims in weights if re.search(rf"(^|\.)({pattern})$", stem)), None)


EMBEDDINGS = {r"embed_tokens|lm_head": (V, H), r"inv_freq": (HEAD_DIM,)}
ATTENTION = {r"q_proj": (A, H), r"[kv]_proj": (K, H), r"o_proj": (H, A)}
GATED_MLP = {r"gate_proj|up_proj": (F, H), r"down_proj": (H, F)}
NORMS = {r"[qk]_norm|(query|key)_layernorm": (HEAD_DIM,), r"\w*norm": (H,)}
# Experts are stored one by one or stacked, depending on who saved the checkpoint.
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
NUMBERED_EXPERTS = {r"\.experts\.(\d+)\.": EXPERTS}
EXPERT_NEURONS_REFUSED = {
    NEURONS: "its neurons sit in experts, and one list a layer cannot say which neurons of which expert stay"
}
HEADS_IN_NORM = {r"q_norm": (A,), r"k_norm": (K,)}

LLAMA = Family(EMBEDDINGS | ATTENTION | GATED_MLP | NORMS)
UNGATED = {r"up_proj|c_fc|fc1|dense_h_to_4h": (F, H), r"down_proj|c_proj|fc2|dense_4h_to_h": (H, F)}
UNGATED_LLAMA = replace(LLAMA, weights=EMBEDDINGS | ATTENTION | UNGATED | NORMS)
GEMMA = replace(LLAMA, norm_plus_one=True, scales_embedding=True)
PHI = replace(LLAMA, weights=EMBEDDINGS | ATTENTION | UNGATED | {r"dense": (H, A), r"\w*layernorm": (H,)})
PHI3 = replace(LLAMA, weights={r"qkv_proj": ("A+K+K", H), r"gate_up_proj": ("F+F", H)} | LLAMA.weights)
GLM = replace(LLAMA, weights={r"gate_up_proj": ("F+F", H)} | LLAMA.weights)
OLMO2 = replace(LLAMA, weights=HEADS_IN_NORM | LLAMA.weights)
COHERE = replace(LLAMA, weights={r"q_norm": (A, HEAD_DIM), r"k_norm": (K, HEAD_DIM)} | LLAMA.weights)
STABLELM = replace(
    LLAMA,
    weights={r"[qk]_layernorm\.norms\.\d+": (HEAD_DIM,)} | LLAMA.weights,
    numbered={r"\.q_layernorm\.norms\.(\d+)\.": HEADS, r"\.k_layernorm\.norms\.(\d+)\.": GROUPS},
    head_dim_free=False,
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
    blocks="transformer.h",
    per_layer=(),
    keys={NEURONS: "n_inner"},
    head_dim_free=False,
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
    blocks="gpt_neox.layers",
    per_layer=(),
    head_dim_free=False,
)
PERSIMMON = replace(
    GPT_NEOX,
    weights={r"embed_tokens": (V, H), r"[qk]_layernorm": (HEAD_DIM,), r"self_attn\.dense": (H, A)} | GPT_NEOX.weights,
    blocks="model.layers",
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
    blocks="model.decoder.layers",
    per_layer=(),
    keys={NEURONS: "ffn_dim"},
    as_hidden=("word_embed_proj_dim",),
    head_dim_free=False,
)
MIXTRAL = Family(
    ROUTED_EXPERTS | EMBEDDINGS | ATTENTION | NORMS, numbered=NUMBERED_EXPERTS, refused=EXPERT_NEURONS_REFUSED
)
QWEN_MOE = replace(
    MIXTRAL,
    weights=ROUTED_EXPERTS
    | EMBEDDINGS
    | ATTENTION
    | {r"gate_proj|up_proj": (EXPERT_NEURONS, H), r"down_proj": (H, EXPERT_NEURONS)}
    | NORMS,
    sparse_layers=True,
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
    "flex_olmo": replace(MIXTRAL, weights=HEADS_IN_NORM | MIXTRAL.weights),
    "gemma": GEMMA,
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "glm": GLM,
    "glm4": GLM,
    "gpt2": GPT2,
    "gpt_neox": GPT_NEOX,
    "gpt_oss": GPT_OSS,
    "granitemoe": replace(MIXTRAL, keys={EXPERTS: "num_local_experts"}),
    "helium": replace(LLAMA, head_dim_free=False),
    "minimax_m2": replace(MIXTRAL, weights=HEADS_IN_NORM | MIXTRAL.weights),
    "mixtral": MIXTRAL,
    "nemotron": replace(UNGATED_LLAMA, norm_plus_one=True),
    "olmo2": OLMO2,
    "olmo3": OLMO2,
    "olmoe": replace(MIXTRAL, weights=HEADS_IN_NORM | MIXTRAL.weights, head_dim_free=False),
    "opt": OPT,
    "persimmon": PERSIMMON,
    "phi": PHI,
    "phi3": PHI3,
    "phimoe": replace(MIXTRAL, keys={EXPERTS: "num_local_experts"}),
    "qwen2_moe": QWEN_MOE,
    "qwen3_moe": QWEN_MOE,
    "smollm3": replace(LLAMA, per_layer=("layer_types", "no_rope_layers")),
    "stablelm": STABLELM,
    "starcoder2": UNGATED_LLAMA,
    "vaultgemma": GEMMA,
}


def family_of(model_type: str) -> Family:
    """Return the row of a model type.

    Raises:
        InputError: the type has no row.
    """
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    close = difflib.get_close_matches(model_type, FAMILIES, n=1)
    hint = f" (the nearest row is {close[0]!r})" if close else ""
    raise InputError(
        f"model type {model_type!r} has no row in trl_prune/pruning/families.py{hint}; "
        f"rows: {', '.join(sorted(FAMILIES))}"
    )
