import pytest
import torch
from datasets import Dataset, IterableDataset

import trl_prune
from tests.conftest import ROWS, save_tiny, tiny_tokenizer
from tests.trainers.kd.training import logged
from trl_prune import KDConfig, KDTrainer
from trl_prune.checkpoints import dense_root, load_model, precision
from trl_prune.data.teacher_cache.codecs import Hidden, Sampled, TopK
from trl_prune.errors import InputError
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
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
VOCAB_SIZE = 259


@pytest.fixture(scope="module")
def pruned(dense, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruned") / "model"
    prune_checkpoint(dense, folder, {LAYERS: [0, 3]}, dense_root(dense, str(dense)))
    return folder


def make_trainer(student, tmp_path, rows=ROWS, teacher_model=None, **args):
    return KDTrainer(
        str(student),
        KDConfig(str(tmp_path / "out"), **(ARGS | args)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tiny_tokenizer(),
        teacher_model=teacher_model,
    )


def train(trainer):
    """Train and return loss and gradient norm of each step."""
    trainer.train()
    return logged(trainer, "loss", "grad_norm")


def write_cache(dense, tmp_path, tier, **args):
    """Return the folder of a cache of the rows."""
    rows = Dataset.from_list(ROWS)
    return str(trl_prune.cache_teacher(str(dense), rows, tmp_path / "cache", tier, args=ARGS | args).folder)


@pytest.mark.parametrize(
    ("tier", "args"),
    [
        pytest.param(TopK(VOCAB_SIZE), {}, marks=pytest.mark.slow),
        (TopK(VOCAB_SIZE, 2.0), {"temperature": 2.0}),
        pytest.param(TopK(VOCAB_SIZE), {"packing": True}, marks=pytest.mark.slow),
        pytest.param(TopK(VOCAB_SIZE), {"completion_only_loss": False}, marks=pytest.mark.slow),
        (TopK(VOCAB_SIZE), {"padding_free": True, "max_length": None, "ce_weight": 0.5}),
        (Hidden(), {}),
        (Hidden(), {"temperature": 2.0, "divergence": "reverse_kl", "packing": True}),
    ],
)
def test_training_on_a_cache_is_training_on_the_teacher(dense, pruned, tmp_path, tier, args):
    """With all ids, or with the states they are computed from, rounded to 16 bits, the losses are the teacher's."""
    cache = write_cache(dense, tmp_path, tier, **args)
    online = train(make_trainer(pruned, tmp_path, **args))
    offline = train(make_trainer(pruned, tmp_path, teacher_cache=cache, **args))
    assert len(online) == 4
    torch.testing.assert_close(torch.tensor(offline), torch.tensor(online), rtol=1e-2, atol=2e-4)


def test_a_bfloat16_teachers_states_are_cached_exactly(pruned, tmp_path, monkeypatch):
    """In the same batches the stored states are the teacher's, so every loss is the same number."""
    monkeypatch.setattr(precision, "native_dtype", lambda _: ("bfloat16", "so that it is not loaded in float32"))
    teacher = save_tiny(tmp_path / "teacher")
    load_model(teacher, "bfloat16").save_pretrained(teacher)
    rows, one_row = Dataset.from_list(ROWS), {"per_device_train_batch_size": 1}
    cache = trl_prune.cache_teacher(str(teacher), rows, tmp_path / "cache", "hidden", args=ARGS, batch_size=1)
    online = train(make_trainer(pruned, tmp_path, teacher_model=str(teacher), **one_row))
    assert train(make_trainer(pruned, tmp_path, teacher_cache=str(cache.folder), **one_row)) == online


def test_the_gradient_of_samples_has_the_direction_of_the_teachers(dense, pruned, tmp_path):
    cache = write_cache(dense, tmp_path, Sampled(64))
    gradients = []
    for args in ({}, {"teacher_cache": cache}):
        trainer = make_trainer(pruned, tmp_path, per_device_train_batch_size=12, **args)
        batch = next(iter(trainer.get_train_dataloader()))
        count = (batch["labels"][:, 1:] != -100).sum()
        trainer.model.train()
        trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=count).backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in trainer.model.parameters()]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.9


def test_evaluation_reads_the_cache_too(dense, pruned, tmp_path):
    cache = write_cache(dense, tmp_path, TopK(VOCAB_SIZE))
    losses = []
    for args in ({}, {"teacher_cache": cache}):
        trainer = KDTrainer(
            str(pruned),
            KDConfig(str(tmp_path / "out"), **(ARGS | args)),
            train_dataset=Dataset.from_list(ROWS),
            eval_dataset=Dataset.from_list(ROWS[:5]),
            processing_class=tiny_tokenizer(),
        )
        losses.append(trainer.evaluate()["eval_kd_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


def test_no_teacher_is_in_memory(dense, pruned, tmp_path):
    trainer = make_trainer(pruned, tmp_path, teacher_cache=write_cache(dense, tmp_path, "sampled"))
    assert not any(isinstance(value, torch.nn.Module) for value in vars(trainer.teacher).values())


@pytest.mark.parametrize(
    ("args", "rows", "message"),
    [
        ({"max_length": 40}, ROWS, "12 of 12 sequences are not in the teacher cache .* max_length"),
        ({}, [*ROWS[:-1], ROWS[0] | {"completion": [{"role": "assistant", "content": "No."}]}], "1 of 12 sequences"),
        ({"temperature": 2.0}, ROWS, "temperature is 2.0, and the sampled cache"),
        ({"hidden_loss": ["block"]}, ROWS, "a teacher cache holds no intermediate states"),
        ({"divergence": "reverse_kl"}, ROWS, "a sampled teacher gives forward_kl only"),
        ({"divergence": "mse"}, ROWS, "'mse' compares the full vocabulary"),
        ({"top_k": 4}, ROWS, "top_k is 4, and the teacher cache is of .*sampled"),
        ({"teacher_correction": "lora"}, ROWS, "teacher_correction is 'lora', and a teacher cache holds predictions"),
    ],
)
def test_a_cache_that_does_not_fit_is_refused_before_training(dense, pruned, tmp_path, args, rows, message):
    cache = write_cache(dense, tmp_path, "sampled")
    with pytest.raises(InputError, match=message):
        make_trainer(pruned, tmp_path, rows, teacher_cache=cache, **args)


@pytest.mark.parametrize(("k", "top_k"), [(4, 5), (5, 4)])
def test_another_top_k_than_the_caches_is_refused(dense, pruned, tmp_path, k, top_k):
    cache = write_cache(dense, tmp_path, TopK(k))
    make_trainer(pruned, tmp_path, teacher_cache=cache, top_k=k)
    with pytest.raises(InputError, match=f"top_k is {top_k}, and the teacher cache is of"):
        make_trainer(pruned, tmp_path, teacher_cache=cache, top_k=top_k)


def test_a_script_over_conversations(dense, pruned, tmp_path):
    """The rows that a script caches are those that its trainer learns."""
    rows = Dataset.from_list([{"messages": row["prompt"] + row["completion"]} for row in ROWS])
    args = KDConfig(str(tmp_path / "out"), **ARGS)
    args.teacher_cache = str(trl_prune.cache_teacher(str(dense), rows, tmp_path / "cache", args=args).folder)
    assert len(train(KDTrainer(str(pruned), args, train_dataset=rows))) == 4


def test_missing_rows_of_evaluation_datasets_are_named(dense, pruned, tmp_path):
    args = KDConfig(str(tmp_path / "out"), **ARGS, teacher_cache=write_cache(dense, tmp_path, "sampled"))
    other = [ROWS[0] | {"completion": [{"role": "assistant", "content": "No."}]}]
    rows = {"train_dataset": Dataset.from_list(ROWS), "processing_class": tiny_tokenizer()}
    with pytest.raises(InputError, match="^eval_dataset: 1 of 1 sequences are not in the teacher cache"):
        KDTrainer(str(pruned), args, eval_dataset=Dataset.from_list(other), **rows)
    with pytest.raises(InputError, match="^late: 1 of 1 sequences are not in the teacher cache"):
        KDTrainer(str(pruned), args, eval_dataset={"late": Dataset.from_list(other)}, **rows)


def test_no_row_of_a_stream_is_compared_with_the_teacher(dense, pruned, tmp_path, caplog):
    args = KDConfig(str(tmp_path / "out"), **ARGS, teacher_cache=write_cache(dense, tmp_path, "topk"))
    stream = IterableDataset.from_generator(lambda: iter(ROWS))
    steps = train(KDTrainer(str(pruned), args, train_dataset=stream, teacher_model=str(dense)))
    assert "is a stream, so no row of the teacher cache is computed again" in caplog.text
    assert len(steps) == 4


def test_a_student_of_fewer_ids_needs_another_cache(dense, tmp_path):
    student = save_tiny(tmp_path / "student", vocab_size=258 + 1)
    cache = write_cache(save_tiny(tmp_path / "wide", vocab_size=300), tmp_path, "topk")
    with pytest.raises(InputError, match="has 300 ids and the student 259; write it with vocab_size=259"):
        make_trainer(student, tmp_path, teacher_cache=cache)


@pytest.mark.parametrize("tier", [TopK(VOCAB_SIZE), Sampled(), Hidden()])
def test_a_student_of_more_ids_learns_those_the_teacher_has(tier, dense, tmp_path):
    student = save_tiny(tmp_path / "student", vocab_size=VOCAB_SIZE + 30, seed=1)
    online = make_trainer(student, tmp_path, teacher_model=str(dense), learning_rate=1e-2)
    offline = make_trainer(student, tmp_path, teacher_cache=write_cache(dense, tmp_path, tier), learning_rate=1e-2)
    before = offline.model.get_output_embeddings().weight[VOCAB_SIZE:].detach().clone()
    offline_steps, online_steps = train(offline), train(online)
    if isinstance(tier, Sampled):  # a sample's entropy differs from the distribution's, and so does the loss
        assert offline_steps[0][1] == pytest.approx(online_steps[0][1], rel=0.1)
    else:
        torch.testing.assert_close(offline_steps, online_steps, rtol=5e-3, atol=1e-4)
    assert torch.equal(offline.model.get_output_embeddings().weight[VOCAB_SIZE:], before)


def test_a_teacher_given_with_its_cache_is_compared_with_it(dense, pruned, tmp_path):
    cache = write_cache(dense, tmp_path, "topk")
    make_trainer(pruned, tmp_path, teacher_cache=cache, teacher_model=str(dense))
    other = save_tiny(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="was written by another teacher"):
        make_trainer(pruned, tmp_path, teacher_cache=cache, teacher_model=str(other))


def test_a_collator_that_changes_labels_is_refused(dense, pruned, tmp_path):
    trainer = make_trainer(pruned, tmp_path, teacher_cache=write_cache(dense, tmp_path, "sampled"))
    collator = trainer.data_collator

    def masking_collator(examples):
        batch = collator(examples)
        batch["labels"][:, -4:] = -100
        return batch

    trainer.data_collator = masking_collator
    with pytest.raises(InputError, match="a data collator changed labels after the cache was written"):
        trainer.train()


def test_leaving_out_intermediate_states_warns(dense, pruned, tmp_path, caplog):
    cache = write_cache(dense, tmp_path, "sampled")
    make_trainer(pruned, tmp_path, teacher_cache=cache, hidden_loss="auto")
    assert "2 of 4 blocks are removed, where hidden_loss='auto' compares intermediate states too" in caplog.text
    caplog.clear()
    make_trainer(pruned, tmp_path, teacher_cache=cache)
    assert "blocks are removed" not in caplog.text


def test_keys_are_of_the_sequences_that_the_model_sees():
    row = {"input_ids": [1, 2, 3, 4], "labels": [1, 2, 3, 4], "seq_lengths": [2, 2]}
    sizes = [len(KeyedCollator(lambda rows: {}, packed)([row, row])["teacher_keys"]) for packed in (True, False)]
    assert sizes == [4, 2]
