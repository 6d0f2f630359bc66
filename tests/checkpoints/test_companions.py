from trl_prune.checkpoints import (
    copy_companions,
)


def test_companions_leave_weights_and_config(copy, tmp_path):
    (copy / "pytorch_model.bin").write_bytes(b"x")
    (copy / "pytorch_model.bin.index.json").write_text("{}")
    target = tmp_path / "target"
    target.mkdir()
    copy_companions(copy, target)
    names = {path.name for path in target.iterdir()}
    assert {"tokenizer.json", "LICENSE", "generation_config.json"} <= names
    assert not {"config.json", "model.safetensors", "pytorch_model.bin", "pytorch_model.bin.index.json"} & names
