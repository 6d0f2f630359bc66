"""What the documents name exists."""

import re
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", *(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_files_and_folders_exist(document):
    text = (ROOT / document).read_text()
    named = set(re.findall(r"`((?:[\w.-]+/)+(?:[\w.-]+\.py)?)`", text))
    written_by_a_run = {"runs/quickstart/report/"}
    missing = [
        name
        for name in sorted(named - written_by_a_run)
        if not any(
            (folder / name).exists() for folder in (ROOT, *(ROOT / "trl_prune").glob("[a-z]*/"), ROOT / "trl_prune")
        )
    ]
    assert not missing
    assert not re.findall(r"\bTIME_[A-Z]+|\bTODO\b", text)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    targets = re.findall(
        r"\]\((?!https?:)([^)#]+)", re.sub(r"```.*?```", "", (ROOT / document).read_text(), flags=re.DOTALL)
    )
    assert [target for target in targets if not (ROOT / document).parent.joinpath(target).exists()] == []
