import json
import math

import pytest

from trl_prune.runs.ledger import Ledger


def test_a_ledger_is_its_file_after_every_entry(tmp_path):
    path = tmp_path / "measurements.json"
    ledger = Ledger(path)
    ledger["1,2"] = 0.5
    ledger["3"] = 0.25
    assert json.loads(path.read_text()) == {"1,2": 0.5, "3": 0.25} == dict(Ledger(path))
    del ledger["3"]
    assert dict(Ledger(path)) == {"1,2": 0.5}
    with pytest.raises(KeyError):
        Ledger(path)["3"]


def test_a_ledger_without_entries_leaves_no_file(tmp_path):
    assert not Ledger(tmp_path / "measurements.json")
    assert not list(tmp_path.iterdir())


def test_the_score_of_a_model_without_numbers_is_read_back(tmp_path):
    Ledger(tmp_path / "scores.json").update({"a": math.inf, "b": 1.5})
    assert dict(Ledger(tmp_path / "scores.json")) == {"a": math.inf, "b": 1.5}
    json.loads((tmp_path / "scores.json").read_text(), parse_constant=pytest.fail)
