import json
import math

import numpy as np
import pytest

from trl_prune.checkpoints import atomic_folder, write_json


def test_atomic_folder_keeps_the_old_one_on_failure(tmp_path):
    target = tmp_path / "target"
    with atomic_folder(target) as part:
        (part / "a").write_text("old")

    def fail():
        with atomic_folder(target) as part:
            (part / "a").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (target / "a").read_text() == "old"
    with atomic_folder(target) as part:
        (part / "b").write_text("new")
    assert [path.name for path in target.iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_json_has_null_for_what_is_no_number(tmp_path, value):
    write_json(tmp_path / "values.json", {"a": [value, 1.5], "b": (value,), "c": {"d": value}})

    def refuse(constant):
        raise AssertionError(constant)

    values = json.loads((tmp_path / "values.json").read_text(), parse_constant=refuse)
    assert values == {"a": [None, 1.5], "b": [None], "c": {"d": None}}
