import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tests.conftest import ROWS, save_tiny
from tests.trainers.configs import config
from tests.trainers.kd.training import logged
from trl_prune import KDTrainer
from trl_prune.checkpoints import dense_root, read_provenance
from trl_prune.pruning.families import LAYERS
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.trainers.teachers.shared import shared_teacher


def lora():
    return LoraConfig(r=2, target_modules="all-linear")


@pytest.fixture(scope="module", params=["llama", "tied", "gpt2"])
def models(request, tmp_path_factory):
    """Return the folders of a dense model and its depth-pruned student."""
    folder = tmp_path_factory.mktemp(request.param)
    changes = {"family": "gpt2"} if request.param == "gpt2" else {"tie_word_embeddings": request.param == "tied"}
    dense = save_tiny(folder / "dense", **changes)
    prune_checkpoint(dense, folder / "pruned", {LAYERS: [0, 3]}, dense_root(dense, str(dense)))
    return dense, folder / "pruned"


def test_the_teacher_is_the_dense_model_on_the_students_tensors(models):
    dense, pruned = models
    student = get_peft_model(AutoModelForCausalLM.from_pretrained(pruned, dtype=torch.float32), lora())
    teacher = shared_teacher(student, dense, read_provenance(pruned))
    tokens = torch.arange(24).view(2, 12)
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(dense, dtype=torch.float32)(tokens).logits
        torch.testing.assert_close(teacher(tokens).logits, logits)
    shared = {weight.data_ptr() for weight in student.parameters()}
    own = [name for name, weight in teacher.named_parameters() if weight.data_ptr() not in shared]
    assert own
    assert all(".1." in name or ".2." in name for name in own)


def test_a_student_with_trained_weights_shares_nothing(models):
    dense, pruned = models
    model = AutoModelForCausalLM.from_pretrained(pruned, dtype=torch.float32)
    with torch.no_grad():
        model.get_decoder().get_input_embeddings().weight[5, 5] += 1
    assert shared_teacher(get_peft_model(model, lora()), dense, read_provenance(pruned)) is None
    without_adapter = AutoModelForCausalLM.from_pretrained(pruned)
    assert shared_teacher(without_adapter, dense, read_provenance(pruned)) is None


def test_training_is_the_same_as_with_a_separate_teacher(models, tmp_path):
    steps = []
    for changes in ({}, {"teacher_model_init_kwargs": {"dtype": "float32"}}):
        args = config(tmp_path, learning_rate=1e-2, hidden_loss="none", **changes)
        trainer = KDTrainer(str(models[1]), args, train_dataset=Dataset.from_list(ROWS), peft_config=lora())
        student = {weight.data_ptr() for weight in trainer.model.parameters()}
        shares = any(weight.data_ptr() in student for weight in trainer.teacher.model.parameters())
        assert shares == (not changes)
        trainer.train()
        steps.append(logged(trainer, "loss", "grad_norm"))
    for with_shared, with_separate in zip(*steps, strict=True):
        assert with_shared == pytest.approx(with_separate, rel=1e-5)
