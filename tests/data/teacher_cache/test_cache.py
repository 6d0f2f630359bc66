import pytest
import torch

from tests.conftest import tiny_tokenizer
from tests.data.teacher_cache.cases import CODECS, cache_spec, dataset_keys, prepared_rows
from trl_prune.data.teacher_cache.codecs import Hidden, Sampled, TopK
from trl_prune.data.teacher_cache.sequences import row_keys
from trl_prune.data.teacher_cache.writing import write_cache
from trl_prune.errors import InputError
from trl_prune.losses.positions import MASKED


@pytest.mark.parametrize("codec", CODECS)
def test_targets_come_in_the_order_of_the_keys(tmp_path, codec):
    rows = prepared_rows()
    cache = write_cache(tmp_path / "cache", cache_spec(rows, codec))
    single = [cache.targets(row_keys(rows[index])) for index in (5, 1)]
    both = cache.targets(dataset_keys([rows[5], rows[1]]))
    name = "hidden" if codec.tier == "hidden" else "probs"
    width = getattr(both, name).shape[1]
    padded = [
        torch.nn.functional.pad(getattr(target, name), (0, width - getattr(target, name).shape[1]))
        for target in single
    ]
    assert torch.equal(getattr(both, name), torch.cat(padded))


def test_sequences_of_another_dataset_are_missing(tmp_path):
    rows = prepared_rows()
    cache = write_cache(tmp_path / "cache", cache_spec(rows, Sampled()))
    changed = [dict(row) for row in rows]
    changed[3]["labels"] = [MASKED, *changed[3]["input_ids"][1:]]
    cache.check_contains(dataset_keys(rows))
    with pytest.raises(InputError, match="1 of 13 sequences are not in the teacher cache"):
        cache.check_contains(dataset_keys(changed))
    with pytest.raises(InputError, match="1 of 13"):
        cache.targets(dataset_keys(changed))


@pytest.mark.parametrize(
    ("codec", "settings", "message"),
    [
        (Sampled(), {"temperature": 2.0}, "temperature is 2.0, and the sampled cache .* serves 1.0 only"),
        (TopK(temperature=2.0), {}, "temperature is 1.0, and the topk cache .* serves 2.0 only"),
        (Hidden(), {"teacher": "another"}, "was written by another teacher"),
    ],
)
def test_settings_that_the_cache_does_not_serve_are_refused(tmp_path, codec, settings, message):
    cache = write_cache(tmp_path / "cache", cache_spec(prepared_rows(), codec))
    with pytest.raises(InputError, match=message):
        cache.check(**settings)


def test_settings_that_the_cache_serves_pass(tmp_path):
    cache = write_cache(tmp_path / "cache", cache_spec(prepared_rows(), Hidden()))
    cache.check(temperature=3.0, tokenizer=tiny_tokenizer(), teacher="tiny")
    changed = tiny_tokenizer()
    changed.add_tokens(["new"])
    with pytest.raises(InputError, match="with another tokenizer"):
        cache.check(tokenizer=changed)
