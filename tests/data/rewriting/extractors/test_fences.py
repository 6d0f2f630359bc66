from trl_prune.data.rewriting.extractors.fences import fenced_blocks


TEXT = "One:\n```python\nx = 1\n```\nTwo:\n  ```JSON\n[1]\n  ```\nThree:\n```\nplain\n```\n```open\nnever closed"


def test_closed_fences_are_found_by_their_tags():
    assert fenced_blocks(TEXT) == ["x = 1\n", "[1]\n", "plain\n"]
    assert fenced_blocks(TEXT, ("", "json")) == ["[1]\n", "plain\n"]
    assert fenced_blocks("none") == []
