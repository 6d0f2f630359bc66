import pytest
import torch
from datasets import Dataset, IterableDataset

import trl_prune
from tests.conftest import ROWS, save_tiny, tiny_tokenizer
from trl_prune import KDConfig, KDTrainer
from trl_prune.checkpoints import dense_root, load_model
from trl_prune.data.teacher_cache.codecs import Hidden, Sampled, TopK
from trl_prune.errors import InputError
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import LAYERS
from trl_prune.trainers.teachers.cached import KeyedCollator


ARGS = {
    "use_cpu": True,
    "bf16": False,
    "max_length": 96,
    "per_device_train_batch_size": 3,
    "gradient_checkpointing": False,
    "report_to": "none",
    "max_steps": 4,
    "logging_steps": 1,
    "learning_rate": 1e-3,
    "save_strategy": "no",
    "hidden_loss": "none",
}
VOCABULARY = 259


@pytest.fixture(scope="module")
def pruned(dense, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruned") / "model"
    prune_checkpoint(dense, folder, {LAYERS: [0, 3]}, dense_root(dense, str(dense)))
    return folder


def trainer(student, tmp_path, rows=ROWS, teacher_model=None, **args):
    return KDTrainer(
        str(student),
        KDConfig(str(tmp_path / "out"), **(ARGS | args)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tiny_tokenizer(),
        teacher_model=teacher_model,
    )


def losses(trained):
    trained.train()
    return [(entry["loss"], entry["grad_norm"]) for entry in trained.state.log_history if "loss" in entry]


def cached(dense, tmp_path, tier, **args):
    return str(
        trl_prune.cache_teacher(str(dense), Dataset.from_list(ROWS), tmp_path / "cache", tier, args=ARGS | args).folder
    )


@pytest.mark.parametrize(
    ("tier", "args"),
    [
        pytest.param(TopK(VOCABULARY), {}, marks=pytest.mark.slow),
        (TopK(VOCABULARY, 2.0), {"temperature": 2.0}),
        pytest.param(TopK(VOCABULARY), {"packing": True}, marks=pytest.mark.slow),
        pytest.param(TopK(VOCABULARY), {"completion_only_loss": False}, marks=pytest.mark.slow),
        (TopK(VOCABULARY), {"padding_free": True, "max_length": None, "ce_weight": 0.5}),
        (Hidden(), {}),
        (Hidden(), {"temperature": 2.0, "divergence": "reverse_kl", "packing": True}),
    ],
)
def test_training_on_a_cache_is_training_on_the_teacher(dense, pruned, tmp_path, tier, args):
    """All ids, or the states they come from, rounded to 16 bits, lead where the teacher itself leads."""
    cache = cached(dense, tmp_path, tier, **args)
    online = losses(trainer(pruned, tmp_path, **args))
    offline = losses(trainer(pruned, tmp_path, teacher_cache=cache, **args))
    assert len(online) == 4
    torch.testing.assert_close(torch.tensor(offline), torch.tensor(online), rtol=1e-2, atol=2e-4)


def test_a_bfloat16_teachers_states_are_cached_exactly(pruned, tmp_path):
    """What it says in the same batches is what is stored, so every loss is the same number."""
    teacher = save_tiny(tmp_path / "teacher")
    load_model(teacher, "bfloat16").save_pretrained(teacher)
    rows, one = Dataset.from_list(ROWS), {"per_device_train_batch_size": 1}
    cache = str(
        trl_prune.cache_teacher(str(teacher), rows, tmp_path / "cache", "hidden", args=ARGS, batch_size=1).folder
    )
    online = losses(trainer(pruned, tmp_path, teacher_model=str(teacher), **one))
    assert losses(trainer(pruned, tmp_path, teacher_cache=cache, **one)) == online


def test_samples_lead_the_same_way(dense, pruned, tmp_path):
    cache = cached(dense, tmp_path, Sampled(64))
    grads = []
    for told in ({}, {"teacher_cache": cache}):
        held = trainer(pruned, tmp_path, per_device_train_batch_size=12, **told)
        batch = next(iter(held.get_train_dataloader()))
        count = (batch["labels"][:, 1:] != -100).sum()
        held.model.train()
        held.compute_loss(held.model, dict(batch), num_items_in_batch=count).backward()
        grads.append(torch.cat([weight.grad.flatten() for weight in held.model.parameters()]))
    assert torch.cosine_similarity(*grads, dim=0) > 0.9


def test_evaluation_reads_the_cache_too(dense, pruned, tmp_path):
    cache = cached(dense, tmp_path, TopK(VOCABULARY))
    told = []
    for args in ({}, {"teacher_cache": cache}):
        held = KDTrainer(
            str(pruned),
            KDConfig(str(tmp_path / "out"), **(ARGS | args)),
            train_dataset=Dataset.from_list(ROWS),
            eval_dataset=Dataset.from_list(ROWS[:5]),
            processing_class=tiny_tokenizer(),
        )
        told.append(held.evaluate()["eval_kd_loss"])
    assert told[1] == pytest.approx(told[0], rel=1e-2)


def test_no_teacher_is_held(dense, pruned, tmp_path):
    held = trainer(pruned, tmp_path, teacher_cache=cached(dense, tmp_path, "sampled"))
    assert not any(isinstance(part, torch.nn.Module) for part in vars(held.teacher).values())


@pytest.mark.parametrize(
    ("args", "rows", "message"),
    [
        ({"max_length": 40}, ROWS, "12 of 12 sequences are not in the teacher cache .* max_length"),
        ({}, [*ROWS[:-1], ROWS[0] | {"completion": [{"role": "assistant", "content": "No."}]}], "1 of 12 sequences"),
        ({"temperature": 2.0}, ROWS, "temperature is 2.0, and the sampled cache"),
        ({"hidden_loss": ["block"]}, ROWS, "a teacher cache holds no intermediate states"),
        ({"divergence": "reverse_kl"}, ROWS, "a sampled teacher gives forward_kl only"),
        ({"divergence": "mse"}, ROWS, "'mse' compares the whole vocabulary"),
        ({"top_k": 4}, ROWS, "top_k is 4, and the teacher cache is of .*sampled"),
        ({"teacher_correction": "lora"}, ROWS, "teacher_correction is 'lora', and a teacher cache holds what"),
    ],
)
def test_a_cache_that_does_not_fit_is_refused_before_training(dense, pruned, tmp_path, args, rows, message):
    cache = cached(dense, tmp_path, "sampled")
    with pytest.raises(InputError, match=message):
        trainer(pruned, tmp_path, rows, teacher_cache=cache, **args)


@pytest.mark.parametrize(("k", "top_k"), [(4, 5), (5, 4)])
def test_ids_that_were_not_kept_are_not_compared(dense, pruned, tmp_path, k, top_k):
    cache = cached(dense, tmp_path, TopK(k))
    trainer(pruned, tmp_path, teacher_cache=cache, top_k=k)
    with pytest.raises(InputError, match=f"top_k is {top_k}, and the teacher cache is of"):
        trainer(pruned, tmp_path, teacher_cache=cache, top_k=top_k)


def test_a_script_over_conversations(dense, pruned, tmp_path):
    """The rows that a script caches are those that its trainer learns."""
    rows = Dataset.from_list([{"messages": row["prompt"] + row["completion"]} for row in ROWS])
    args = KDConfig(str(tmp_path / "out"), **ARGS)
    args.teacher_cache = str(trl_prune.cache_teacher(str(dense), rows, tmp_path / "cache", args=args).folder)
    told = losses(KDTrainer(str(pruned), args, train_dataset=rows))
    assert len(told) == 4


def test_rows_that_only_evaluation_has_are_named(dense, pruned, tmp_path):
    args = KDConfig(str(tmp_path / "out"), **ARGS, teacher_cache=cached(dense, tmp_path, "sampled"))
    other = [ROWS[0] | {"completion": [{"role": "assistant", "content": "No."}]}]
    rows = {"train_dataset": Dataset.from_list(ROWS), "processing_class": tiny_tokenizer()}
    with pytest.raises(InputError, match="^eval_dataset: 1 of 1 sequences are not in the teacher cache"):
        KDTrainer(str(pruned), args, eval_dataset=Dataset.from_list(other), **rows)
    with pytest.raises(InputError, match="^late: 1 of 1 sequences are not in the teacher cache"):
        KDTrainer(str(pruned), args, eval_dataset={"late": Dataset.from_list(other)}, **rows)


def test_of_a_stream_no_row_is_asked_for_proof(dense, pruned, tmp_path, caplog):
    args = KDConfig(str(tmp_path / "out"), **ARGS, teacher_cache=cached(dense, tmp_path, "topk"))
    stream = IterableDataset.from_generator(lambda: iter(ROWS))
    told = losses(KDTrainer(str(pruned), args, train_dataset=stream, teacher_model=str(dense)))
    assert "is a stream, so no row of the teacher cache is computed again" in caplog.text
    assert len(told) == 4


def test_a_student_of_fewer_ids_wants_a_cache_of_its_own(dense, tmp_path):
    student = save_tiny(tmp_path / "student", vocab_size=258 + 1)
    cache = cached(save_tiny(tmp_path / "wide", vocab_size=300), tmp_path, "topk")
    with pytest.raises(InputError, match="has 300 ids and the student 259; write it with vocab_size=259"):
        trainer(student, tmp_path, teacher_cache=cache)


@pytest.mark.parametrize("tier", [TopK(VOCABULARY), Sampled(), Hidden()])
def test_a_student_of_more_ids_is_taught_those_the_teacher_has(tier, dense, tmp_path):
    student = save_tiny(tmp_path / "student", vocab_size=VOCABULARY + 30, seed=1)
    online = trainer(student, tmp_path, teacher_model=str(dense), learning_rate=1e-2)
    offline = trainer(student, tmp_path, teacher_cache=cached(dense, tmp_path, tier), learning_rate=1e-2)
    before = offline.model.get_output_embeddings().weight[VOCABULARY:].detach().clone()
    found, wanted = losses(offline), losses(online)
    if isinstance(tier, Sampled):  # its entropy is not the distribution's, so losses differ by it
        assert found[0][1] == pytest.approx(wanted[0][1], rel=0.1)
    else:
        torch.testing.assert_close(found, wanted, rtol=5e-3, atol=1e-4)
    assert torch.equal(offline.model.get_output_embeddings().weight[VOCABULARY:], before)


def test_a_teacher_given_beside_its_cache_is_asked_for_proof(dense, pruned, tmp_path):
    cache = cached(dense, tmp_path, "topk")
    trainer(pruned, tmp_path, teacher_cache=cache, teacher_model=str(dense))
    other = save_tiny(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="was written by another teacher"):
        trainer(pruned, tmp_path, teacher_cache=cache, teacher_model=str(other))


def test_a_collator_that_moves_labels_is_noticed(dense, pruned, tmp_path):
    held = trainer(pruned, tmp_path, teacher_cache=cached(dense, tmp_path, "sampled"))
    inner = held.data_collator

    def masking(examples):
        batch = inner(examples)
        batch["labels"][:, -4:] = -100
        return batch

    held.data_collator = masking
    with pytest.raises(InputError, match="a data collator changed labels after the cache was written"):
        held.train()


def test_states_that_no_cache_holds_are_not_left_out_in_silence(dense, pruned, tmp_path, caplog):
    cache = cached(dense, tmp_path, "sampled")
    trainer(pruned, tmp_path, teacher_cache=cache, hidden_loss="auto")
    assert "2 of 4 blocks are gone, where hidden_loss='auto' compares intermediate states too" in caplog.text
    caplog.clear()
    trainer(pruned, tmp_path, teacher_cache=cache)
    assert "blocks are gone" not in caplog.text


def test_keys_follow_what_the_model_is_given():
    row = {"input_ids": [1, 2, 3, 4], "labels": [1, 2, 3, 4], "seq_lengths": [2, 2]}
    sizes = [len(KeyedCollator(lambda rows: {}, packed)([row, row])["teacher_keys"]) for packed in (True, False)]
    assert sizes == [4, 2]
