import pytest

from trl_prune.data.rewriting.provenance import AnswerRecord, acceptance_summary, read_records, write_records


RECORDS = [
    AnswerRecord(0, 1, "rewritten", "accepted", "math", "column", 0, "aa", "It is 5.", "Two and three are 5."),
    AnswerRecord(1, 1, "reference", "disagrees", "math", "column", None, "bb", "It is 5.", "It is 6."),
    AnswerRecord(2, None, "reference", "no_answer_to_rewrite"),
]


def test_records_are_read_as_written(tmp_path):
    write_records(RECORDS, tmp_path / "provenance.jsonl")
    assert read_records(tmp_path / "provenance.jsonl") == RECORDS


def test_a_summary_counts_by_capability_and_by_type():
    rows = [{"capability": "sums"}, {"capability": "sums"}, {}]
    summary = acceptance_summary(RECORDS, rows)
    assert summary["by_capability"]["sums"] == {
        "answers": 2,
        "acceptance_rate": 0.5,
        "reasons": {"accepted": 1, "disagrees": 1},
    }
    assert summary["by_type"]["all"]["acceptance_rate"] == pytest.approx(1 / 3)
    assert set(summary["by_type"]) == {"all", "math", "none"}
    assert summary["types_chosen_by"] == {"column": 2}
    assert summary["length"] == {"reference_words": 3, "rewrite_words": 5}


def test_rows_without_capabilities_are_one_group():
    assert set(acceptance_summary(RECORDS, [{}] * 3)["by_capability"]) == {"all"}
    assert acceptance_summary(RECORDS[1:], [{}] * 3)["length"] is None
