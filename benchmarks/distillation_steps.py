"""Training steps that `distillation.py` measures: each function returns one that runs forward, loss and backward."""

import tempfile
from pathlib import Path

import torch
from datasets import Dataset


# Rows and tokens of a batch, and the blocks that the student lacks.
BATCH, TOKENS, REMOVED = 2, 256, range(20, 26)
MIDDLE = range(12, 18)


def model_folders(removed=REMOVED):
    """Return the folders of teacher and student: SmolLM2-135M-Instruct, and the same without some blocks."""
    from trl_prune.checkpoints import dense_root
    from trl_prune.pruning.families import LAYERS
    from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
    from trl_prune.smollm2 import smollm2

    dense = smollm2()
    student = Path(tempfile.gettempdir()) / f"trl-prune-benchmark-student-{removed.start}-{removed.stop}"
    if not student.exists():
        keep = {LAYERS: [block for block in range(30) if block not in removed]}
        prune_checkpoint(dense, student, keep, dense_root(dense, str(dense)))
    return str(dense), str(student)


def token_rows():
    """Return rows of token ids of real text, all of them learned."""
    from trl_prune.checkpoints import load_tokenizer
    from trl_prune.data.starter import starter_rows
    from trl_prune.smollm2 import smollm2

    joined = " ".join(str(row["prompt"]) + str(row["completion"]) for row in starter_rows())
    ids = load_tokenizer(smollm2())(joined)["input_ids"]
    return [ids[start : start + TOKENS] for start in range(0, BATCH * TOKENS, TOKENS)]


def arguments(config_class, **changes):
    """Return training arguments, the same for every trainer."""
    defaults = {"per_device_train_batch_size": BATCH, "use_cpu": True, "bf16": False, "report_to": "none"}
    defaults |= {"gradient_checkpointing": False, "save_strategy": "no"}
    return config_class(tempfile.mkdtemp(), **defaults, **changes)


def ideal_step():
    """Return a step of both backbones and the four products, without a loss."""
    from transformers import AutoModelForCausalLM

    teacher, student = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in model_folders()
    )
    inputs = {"input_ids": torch.tensor(token_rows()), "use_cache": False}

    def step():
        student.zero_grad()
        states = student.base_model(**inputs).last_hidden_state[:, :-1].flatten(0, 1)
        with torch.no_grad():
            teacher_states = teacher.base_model(**inputs).last_hidden_state[:, :-1].flatten(0, 1)
            weight = student.lm_head.weight
            logits, _ = states @ weight.T, teacher_states @ teacher.lm_head.weight.T
            state_gradient, weight_gradient = logits @ weight, logits.T @ states
        states.backward(state_gradient / state_gradient.norm())
        weight.grad += weight_gradient
        return float("nan")

    return step


def trainer_step(trainer, inputs, count):
    """Return a step of a trainer: forward, loss and backward, as in its training loop."""
    trainer.create_optimizer()
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1

    def step():
        trainer.model.zero_grad()
        return trainer.training_step(trainer.model, dict(inputs), torch.tensor(count))

    return step


def batch():
    """Return a padded batch of the rows, and its number of learned tokens."""
    ids = torch.tensor(token_rows())
    inputs = {"input_ids": ids, "labels": ids.clone(), "attention_mask": torch.ones_like(ids)}
    return inputs, BATCH * (TOKENS - 1)


def sft_step():
    """Return a step of TRL's SFTTrainer, which has no teacher."""
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_list([{"input_ids": row} for row in token_rows()])
    return trainer_step(SFTTrainer(model_folders()[1], arguments(SFTConfig), train_dataset=data), *batch())


def kd_step(removed=REMOVED, **changes):
    """Return a step of KDTrainer."""
    from trl_prune import KDConfig, KDTrainer

    data = Dataset.from_list([{"input_ids": row} for row in token_rows()])
    args = arguments(KDConfig, teacher_model_init_kwargs={"dtype": "float32"}, **changes)
    dense, pruned = model_folders(removed)
    return trainer_step(KDTrainer(pruned, args, train_dataset=data, teacher_model=dense), *batch())


def gkd_step():
    """Return a step of TRL's GKDTrainer, on the data's answers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    dense, pruned = model_folders()
    teacher, student = (AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32) for name in (dense, pruned))
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}] * 2
    tokenizer = AutoTokenizer.from_pretrained(dense)
    args = arguments(GKDConfig, lmbda=0.0, beta=0.0)
    trainer = GKDTrainer(student, teacher, args, processing_class=tokenizer, train_dataset=Dataset.from_list(rows))
    inputs, count = batch()
    inputs |= {"prompts": inputs["input_ids"][:, :1], "prompt_attention_mask": inputs["attention_mask"][:, :1]}
    return trainer_step(trainer, inputs, count)


def distillation_step():
    """Return a step of TRL's DistillationTrainer, on the data's answers instead of generated ones."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DistillationConfig, DistillationTrainer

    dense, pruned = model_folders()
    teacher, student = (AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32) for name in (dense, pruned))
    args = arguments(DistillationConfig, beta=0.0)
    rows = Dataset.from_list([{"prompt": "a"}] * BATCH)
    trainer = DistillationTrainer(
        student, teacher, args, train_dataset=rows, processing_class=AutoTokenizer.from_pretrained(dense)
    )
    inputs, count = batch()
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    inputs = {"prompt_ids": ids[:, :1], "completion_ids": ids[:, 1:]}
    inputs |= {"prompt_mask": mask[:, :1], "completion_mask": mask[:, 1:]}
    trainer.model.train()

    def step():
        trainer.model.zero_grad()
        loss = trainer._compute_loss(trainer.model, inputs, torch.tensor(count))
        loss = loss[0] if isinstance(loss, tuple) else loss
        loss.backward()
        return loss.detach()

    return step


STEPS = {
    "ideal": ideal_step,
    "SFTTrainer (no teacher)": sft_step,
    "KDTrainer": lambda: kd_step(hidden_loss="none"),
    "KDTrainer, 20 shared blocks frozen": lambda: kd_step(hidden_loss="none", freeze_shared_blocks=True),
    "KDTrainer, 12 shared blocks frozen": lambda: kd_step(MIDDLE, hidden_loss="none", freeze_shared_blocks=True),
    "KDTrainer, embedding and block states": lambda: kd_step(hidden_loss=["embedding", "block"], hidden_weight=1.0),
    "TRL GKDTrainer": gkd_step,
    "TRL DistillationTrainer": distillation_step,
}
