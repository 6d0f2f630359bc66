"""Checkpoint folders: find, read, load, write and fingerprint them, and record what they descend from."""

from trl_prune.checkpoints.architecture import check_causal_lm
from trl_prune.checkpoints.companions import changed_companions, companions, copy_companions
from trl_prune.checkpoints.fingerprints import fingerprint, weights_fingerprint
from trl_prune.checkpoints.finiteness import check_finite, is_finite
from trl_prune.checkpoints.loading import (
    best_device,
    cache_argument,
    load_config,
    load_model,
    load_tokenizer,
    model_class,
    num_blocks,
)
from trl_prune.checkpoints.precision import loading_dtype, native_dtype
from trl_prune.checkpoints.provenance import (
    PROVENANCE,
    Provenance,
    dense_root,
    library_versions,
    read_provenance,
    write_provenance,
)
from trl_prune.checkpoints.reading import (
    INDEX,
    SINGLE,
    check_weights,
    file_hash,
    hub_commit,
    locate,
    read_header,
    tensor_files,
)
from trl_prune.checkpoints.verification import (
    DamagedCheckpointError,
    probe_logits,
    prove_source,
    verify_companions,
    verify_loads,
    verify_runs,
)
from trl_prune.checkpoints.writing import atomic_file, atomic_folder, write_json, write_text


__all__ = [
    "INDEX",
    "PROVENANCE",
    "SINGLE",
    "DamagedCheckpointError",
    "Provenance",
    "atomic_file",
    "atomic_folder",
    "best_device",
    "cache_argument",
    "changed_companions",
    "check_causal_lm",
    "check_finite",
    "check_weights",
    "companions",
    "copy_companions",
    "dense_root",
    "file_hash",
    "fingerprint",
    "hub_commit",
    "is_finite",
    "library_versions",
    "load_config",
    "load_model",
    "load_tokenizer",
    "loading_dtype",
    "locate",
    "model_class",
    "native_dtype",
    "num_blocks",
    "probe_logits",
    "prove_source",
    "read_header",
    "read_provenance",
    "tensor_files",
    "verify_companions",
    "verify_loads",
    "verify_runs",
    "weights_fingerprint",
    "write_json",
    "write_provenance",
    "write_text",
]
