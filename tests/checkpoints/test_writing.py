import pytest

from trl_prune.checkpoints import (
    atomic_folder,
)


def test_atomic_folder_keeps_the_old_one_on_failure(tmp_path):
    target = tmp_path / "target"
    with atomic_folder(target) as part:
        (part / "a").write_text("old")

    def fail():
        with atomic_folder(target) as part:
            (part / "a").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (target / "a").read_text() == "old"
    with atomic_folder(target) as part:
        (part / "b").write_text("new")
    assert [path.name for path in target.iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
