import ast
import hashlib
import json
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from trl_prune.data import starter
from trl_prune.data.starter import CAPABILITIES, starter_rows
from trl_prune.data.starter.sentences import corrections
from trl_prune.data.starter.unit_conversion import conversions


ROWS = starter_rows()

FOLDER = Path(starter.__file__).parent
JSONL_FILES = sorted(FOLDER.glob("*/*.jsonl"))
DATA_FILES = [*JSONL_FILES, *sorted(FOLDER.glob("*/*.yaml"))]

# SHA-256 of `json.dumps(starter_rows(seed), ensure_ascii=False).encode("utf-8")`, by seed.
CHECKSUMS = {
    0: "1d22dde9043200eea7c6b45b891ed550be68966db6320414a4ae11826e3e53ea",
    1: "52e91015c8656308b2697f5628eb8246c76123300c3e4ba45c42ec5f0ac76335",
    7: "fbce0b8af957f5ba80f5dbbcee936a892749b8a90101eabaaa4b516da99f38e4",
}

SMALLEST_COUNTS = {
    "arithmetic": 200,
    "facts": 150,
    "commonsense": 100,
    "grammar": 100,
    "rewriting": 100,
    "extraction": 120,
    "ordering": 100,
    "short_explanation": 100,
    "classification": 100,
    "unit_conversion": 80,
}

ANSWER_TYPES = {
    "arithmetic": {"number"},
    "facts": {"phrase"},
    "commonsense": {"phrase", "open"},
    "grammar": {"phrase"},
    "rewriting": {"open"},
    "extraction": {"phrase"},
    "ordering": {"phrase"},
    "short_explanation": {"open"},
    "classification": {"phrase"},
    "unit_conversion": {"number"},
}

# Reserved for evaluation, so that training never sees them.
HELD_OUT = re.compile(
    r"\b(opposites?|antonyms?|synonyms?|odd one|does not belong|comes? next|next number|next letter|plurals?"
    r"|true or false|repeat|copy|what sound|kind of animal|type of animal|refers? to|pronouns?|ending of the story"
    r"|how does the story end|means the same|similar meaning|___)",
    re.IGNORECASE,
)

# Every unit in terms of the smallest one of its kind.
UNIT_SIZES = {
    **{"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400, "weeks": 604800},
    **{"months": 1, "years": 12, "decades": 120, "centuries": 1200},
    **{"millimeters": 1, "centimeters": 10, "meters": 1000, "kilometers": 1_000_000},
    **{"grams": 1, "kilograms": 1000, "tonnes": 1_000_000, "milliliters": 1, "liters": 1000},
    **{"inches": 1, "feet": 12, "yards": 36, "ounces": 1, "pounds": 16, "quarts": 1, "gallons": 4},
    **{"cents": 1, "quarters": 25, "dollars": 100, "eggs": 1, "dozen eggs": 12},
}

EQUATION = re.compile(r"(\d+(?: [-+*/] \d+)+) = (\d+)")
FINAL_ANSWER = re.compile(r"The answer is (-?\d+)\.$")

# Numbers that a word problem gives in words: half, twice, three tests or a coin.
SPOKEN_NUMBERS = {2, 3, 10, 25}


def prompt_of(row):
    return row["prompt"][0]["content"]


def completion_of(row):
    return row["completion"][0]["content"]


def rows_of(*capabilities):
    return [row for row in ROWS if row["capability"] in capabilities]


def evaluate(expression):
    """Evaluate a chain of calculations without `eval`."""

    def value(node):
        if isinstance(node, ast.Constant):
            return Fraction(node.value)
        left, right = value(node.left), value(node.right)
        results = {ast.Add: left + right, ast.Sub: left - right, ast.Mult: left * right, ast.Div: left / right}
        return results[type(node.op)]

    return value(ast.parse(expression, mode="eval").body)


@pytest.mark.parametrize("seed", CHECKSUMS)
def test_rows_match_their_checksum(seed):
    serialized = json.dumps(starter_rows(seed), ensure_ascii=False).encode("utf-8")

    assert hashlib.sha256(serialized).hexdigest() == CHECKSUMS[seed]


@pytest.mark.parametrize("path", JSONL_FILES, ids=lambda path: path.name)
def test_jsonl_files_hold_one_entry_per_line_with_the_same_fields(path):
    text = path.read_text(encoding="utf-8")
    entries = [json.loads(line) for line in text.removesuffix("\n").split("\n")]

    assert text.endswith("\n")
    assert len({tuple(entry) for entry in entries}) == 1
    assert len({json.dumps(entry).casefold() for entry in entries}) == len(entries)


def test_finished_rows_name_the_capability_of_their_file():
    for path in (FOLDER / "rows").glob("*.jsonl"):
        assert {json.loads(line)["capability"] for line in path.open(encoding="utf-8")} == {path.stem}


def test_the_readme_lists_every_data_file_with_its_number_of_entries():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([^`]+\.(?:jsonl|yaml))`", readme, re.MULTILINE)
    counts = dict(re.findall(r"^\| `([^`]+\.jsonl)` \| (\d+) \|", readme, re.MULTILINE))

    assert sorted(listed) == sorted(path.name for path in DATA_FILES)
    assert counts == {path.name: str(path.read_text(encoding="utf-8").count("\n")) for path in JSONL_FILES}


def test_the_readme_lists_every_field_of_the_jsonl_files():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in JSONL_FILES:
        with path.open(encoding="utf-8") as lines:
            fields = json.loads(next(lines))
        (line,) = [line for line in readme.splitlines() if line.startswith(f"| `{path.name}`")]
        described = readme if path.parent.name == "rows" else line
        assert [field for field in fields if f"`{field}`" not in described] == []


def test_same_seed_gives_same_rows():
    assert starter_rows() == ROWS
    assert starter_rows(7) == starter_rows(7)


def test_another_seed_gives_other_rows():
    assert starter_rows(1) != ROWS


@pytest.mark.parametrize("seed", range(5))
def test_counts(seed):
    rows = starter_rows(seed)
    counts = Counter(row["capability"] for row in rows)

    assert 1000 <= len(rows) <= 1400
    assert counts.keys() == CAPABILITIES.keys() == SMALLEST_COUNTS.keys()
    assert all(counts[capability] >= smallest for capability, smallest in SMALLEST_COUNTS.items())


@pytest.mark.parametrize("seed", range(5))
def test_no_prompt_occurs_twice(seed):
    prompts = Counter(prompt_of(row).casefold() for row in starter_rows(seed))

    assert [prompt for prompt, count in prompts.items() if count > 1] == []


@pytest.mark.parametrize("seed", range(5))
def test_every_100_consecutive_rows_cover_all_capabilities(seed):
    capabilities = [row["capability"] for row in starter_rows(seed)]

    for start in range(len(capabilities) - 99):
        assert set(capabilities[start : start + 100]) == CAPABILITIES.keys()


def test_columns_are_uniform():
    for row in ROWS:
        assert list(row) == ["prompt", "completion", "capability", "answer_type", "answer"]
        assert [message["role"] for message in (*row["prompt"], *row["completion"])] == ["user", "assistant"]
        assert row["answer_type"] in ANSWER_TYPES[row["capability"]]
        assert (row["answer"] is None) == (row["answer_type"] == "open")


def test_texts_are_clean_sentences():
    for row in ROWS:
        completion = completion_of(row)
        assert 8 <= len(completion.split()) <= 80, completion
        assert completion[-1] in '.!?"', completion
        for text in (prompt_of(row), completion):
            assert text == text.strip()
            assert not re.search(r"[{}|]|  |\.\.|\bNone\b|,,", text), text


def test_average_completion_length():
    lengths = [len(completion_of(row).split()) for row in ROWS]

    assert 25 <= sum(lengths) / len(lengths) <= 40


def test_number_rows_end_with_their_answer():
    for row in rows_of("arithmetic", "unit_conversion"):
        assert FINAL_ANSWER.search(completion_of(row)).group(1) == row["answer"]


def test_every_calculation_is_right_and_leads_to_the_answer():
    for row in rows_of("arithmetic", "unit_conversion"):
        calculations = EQUATION.findall(completion_of(row))
        assert all(evaluate(expression) == int(result) for expression, result in calculations), completion_of(row)
        assert calculations[-1][1] == row["answer"]


def test_calculations_use_only_numbers_of_the_problem():
    for row in rows_of("arithmetic"):
        known = {int(number) for number in re.findall(r"\d+", prompt_of(row))} | SPOKEN_NUMBERS
        for expression, result in EQUATION.findall(completion_of(row)):
            assert {int(number) for number in re.findall(r"\d+", expression)} <= known, prompt_of(row)
            known.add(int(result))


def test_conversion_factors_match_the_unit_sizes():
    for conversion in conversions():
        ratio = Fraction(UNIT_SIZES[conversion.source], UNIT_SIZES[conversion.target])
        assert ratio == (conversion.factor if conversion.operator == "*" else Fraction(1, conversion.factor))


def test_conversion_answers_follow_from_the_prompt():
    for row in rows_of("unit_conversion"):
        given = re.search(r"\d+", prompt_of(row)).group()
        source, target = re.search(rf"that {given} (.+) make [^=]+= \d+ (.+)\. The", completion_of(row)).groups()
        assert Fraction(int(given) * UNIT_SIZES[source], UNIT_SIZES[target]) == int(row["answer"])


def test_phrase_answers_occur_in_their_completion():
    for row in ROWS:
        if row["answer_type"] == "phrase":
            assert row["answer"].casefold() in completion_of(row).casefold()


def test_extraction_answers_occur_in_the_passage():
    for row in rows_of("extraction"):
        assert row["answer"] in prompt_of(row)


def test_ordering_prompt_holds_the_same_members_in_another_order():
    for row in rows_of("ordering"):
        assert all(member in prompt_of(row) for member in row["answer"].split(", "))
        assert row["answer"] not in prompt_of(row)


def test_sorted_words_and_numbers_are_sorted():
    for row in rows_of("ordering"):
        members = row["answer"].split(", ")
        if members[0].isdigit():
            falling = "largest to smallest" in prompt_of(row)
            assert members == [str(number) for number in sorted(map(int, members), reverse=falling)]
        elif re.search(r"alphabetical|A to Z|dictionary", prompt_of(row)):
            assert members == sorted(members)


def test_historical_years_are_ascending():
    replies = [completion_of(row) for row in rows_of("ordering") if "They date from" in completion_of(row)]

    assert replies
    for reply in replies:
        years = [int(year) for year in re.findall(r"\d{4}", reply.split("They date from")[1])]
        assert len(years) == 3
        assert years == sorted(set(years))


def test_grammar_rows_change_the_sentence():
    for correction in corrections():
        ((wrong, right),) = re.findall(r"\{([^|{}]+)\|([^|{}]+)\}", correction.sentence)
        assert wrong != right
    for row in rows_of("grammar"):
        assert row["answer"] not in prompt_of(row)


def test_classification_prompt_offers_the_label_and_the_reply_names_no_other():
    groups = (
        {"positive", "negative", "neutral"},
        {"sports", "cooking", "technology", "travel", "finance", "health"},
        {"spam", "legitimate"},
        {"complaint", "request", "question", "praise"},
    )
    for row in rows_of("classification"):
        group = next(group for group in groups if row["answer"] in group)
        assert all(label in prompt_of(row) for label in group)
        # Only the part that decides counts: a reason may use everyday words such as "travel".
        decision = re.split(r", (?:because|since) |: ", completion_of(row))[0]
        assert [label for label in group if label in decision] == [row["answer"]]


@pytest.mark.parametrize("seed", range(3))
def test_held_out_topics_are_absent(seed):
    assert [prompt_of(row) for row in starter_rows(seed) if HELD_OUT.search(prompt_of(row))] == []
