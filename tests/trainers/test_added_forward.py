import inspect

import torch

from tests.conftest import tiny_model
from trl_prune.trainers.added_forward import add_forward


def test_a_call_with_the_keyword_gets_the_other_forward_and_its_arguments():
    model = tiny_model("llama")
    ids = torch.randint(0, 250, (2, 5), generator=torch.Generator().manual_seed(0))
    logits = model(ids).logits
    calls = []
    add_forward(model, "factor", lambda *call: calls.append(call) or call[1]().logits * call[3])
    with torch.no_grad():
        doubled = model(input_ids=ids, labels=ids, factor=2)
    torch.testing.assert_close(doubled, 2 * logits)
    (found, bound, labels, value), *others = calls
    assert not others
    assert found is model
    assert bound.keywords == {"input_ids": ids}
    assert labels is ids
    assert value == 2


def test_calls_without_it_are_as_before():
    model = tiny_model("llama")
    ids = torch.randint(0, 250, (2, 5), generator=torch.Generator().manual_seed(0))
    before, signature = model(ids, labels=ids), inspect.signature(model.forward)
    add_forward(model, "factor", None)
    after = model(ids, labels=ids)
    assert torch.equal(after.loss, before.loss)
    assert torch.equal(model(ids).logits, before.logits)
    # The Trainer drops the columns of rows that the signature does not name.
    assert inspect.signature(model.forward) == signature
