"""The card of a pruned checkpoint is one that the hub can read."""

from huggingface_hub import ModelCard, metadata_load

from tests.conftest import save_tiny
from trl_prune.checkpoints import Provenance, write_provenance
from trl_prune.reporting.card import write_card


SIZES = {"parameters": (134_515_008, 113_274_432)}


def carded(tmp_path, path, licence=""):
    source = save_tiny(tmp_path / "source")
    if licence:
        (source / "README.md").write_text(f"---\nlicense: {licence}\n---\n# The dense model\n")
    edits = [{"repair": "norm_rescale"}]
    keep = {"num_hidden_layers": [0, 2, 3], "hidden_size": list(range(16))}
    folder = save_tiny(tmp_path / "pruned")
    write_provenance(Provenance({"path": path}, str(source), keep, edits), folder)
    write_card(folder, source, SIZES, "Chosen by angular_distance.")
    return folder / "README.md"


def test_a_cut_of_a_hub_model_names_it_and_its_licence(tmp_path):
    card = carded(tmp_path, "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")
    metadata = metadata_load(card)
    assert metadata["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert metadata["license"] == "apache-2.0"
    assert metadata["library_name"] == "transformers"
    text = ModelCard.load(card).text
    assert "hidden_size 16, num_hidden_layers 3" in text
    assert "| parameters | 134,515,008 | 113,274,432 |" in text
    assert "norm_rescale" in text


def test_a_cut_of_a_folder_names_no_hub_model(tmp_path):
    metadata = metadata_load(carded(tmp_path, str(tmp_path / "source")))
    assert "base_model" not in metadata
    assert "license" not in metadata
    assert str(tmp_path) not in (tmp_path / "pruned" / "README.md").read_text()
