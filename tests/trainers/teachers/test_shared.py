import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tests.conftest import ROWS, save_tiny
from tests.trainers.kd.test_trainer import config, logged
from trl_prune import KDTrainer
from trl_prune.checkpoints import dense_root, read_provenance
from trl_prune.pruning.surgery.checkpoint import prune_checkpoint
from trl_prune.pruning.surgery.cut import LAYERS
from trl_prune.trainers.teachers.shared import shared_teacher


def lora():
    return LoraConfig(r=2, target_modules="all-linear")


@pytest.fixture(scope="module", params=["llama", "tied", "gpt2"])
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    changes = {"family": "gpt2"} if request.param == "gpt2" else {"tie_word_embeddings": request.param == "tied"}
    dense = save_tiny(folder / "dense", **changes)
    prune_checkpoint(dense, folder / "pruned", {LAYERS: [0, 3]}, dense_root(dense, str(dense)))
    return dense, folder / "pruned"


def test_it_is_the_dense_model_on_the_students_tensors(pair):
    dense, pruned = pair
    student = get_peft_model(AutoModelForCausalLM.from_pretrained(pruned, dtype=torch.float32), lora())
    teacher = shared_teacher(student, dense, read_provenance(pruned))
    tokens = torch.arange(24).view(2, 12)
    with torch.inference_mode():
        wanted = AutoModelForCausalLM.from_pretrained(dense, dtype=torch.float32)(tokens).logits
        torch.testing.assert_close(teacher(tokens).logits, wanted)
    ours = {weight.data_ptr() for weight in student.parameters()}
    own = [name for name, weight in teacher.named_parameters() if weight.data_ptr() not in ours]
    assert own
    assert all(".1." in name or ".2." in name for name in own)


def test_a_student_that_was_trained_since_has_a_teacher_of_its_own(pair):
    dense, pruned = pair
    model = AutoModelForCausalLM.from_pretrained(pruned, dtype=torch.float32)
    with torch.no_grad():
        model.get_decoder().get_input_embeddings().weight[5, 5] += 1
    assert shared_teacher(get_peft_model(model, lora()), dense, read_provenance(pruned)) is None
    plain = AutoModelForCausalLM.from_pretrained(pruned)
    assert shared_teacher(plain, dense, read_provenance(pruned)) is None


def test_training_is_the_same(pair, tmp_path):
    told = []
    for more in ({}, {"teacher_model_init_kwargs": {"dtype": "float32"}}):
        args = config(tmp_path, learning_rate=1e-2, hidden_loss="none", **more)
        trainer = KDTrainer(str(pair[1]), args, train_dataset=Dataset.from_list(ROWS), peft_config=lora())
        shared = {weight.data_ptr() for weight in trainer.model.parameters()}
        assert any(weight.data_ptr() in shared for weight in trainer.teacher.model.parameters()) == (not more)
        trainer.train()
        told.append(logged(trainer, "loss", "grad_norm"))
    for one, other in zip(*told, strict=True):
        assert one == pytest.approx(other, rel=1e-5)
