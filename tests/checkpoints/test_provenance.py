import pytest

from trl_prune.checkpoints import (
    PROVENANCE,
    Provenance,
    dense_root,
    read_provenance,
    write_provenance,
)
from trl_prune.errors import InputError
from trl_prune.pruning.surgery.cut import LAYERS


def test_provenance_round_trip_and_root(copy):
    assert read_provenance(copy) is None
    root = dense_root(copy, str(copy))
    assert root["path"] == str(copy.resolve())
    write_provenance(Provenance(root, "parent", {LAYERS: [0]}), copy)
    assert read_provenance(copy).dense == root
    assert dense_root(copy, "another name") == root
    (copy / PROVENANCE).write_text('{"x": 1}')
    with pytest.raises(InputError, match="not a provenance file"):
        read_provenance(copy)
