import pytest

from trl_prune.data.rewriting.text_faults import BANNED_PHRASES, text_fault


QUESTION = "What is the tallest mountain in the world today?"
LOOPS = [
    "the same six words every time " * 3,
    "a b c d e f " * 3,
    "ha" * 40,
    "a" * 60,
    "Yes, I agree.\n" * 5,
    "1. apple\n2. apple\n3. apple\n4. apple",
    "- a red apple\n- a pear\n- a red apple\n- a red apple\n- a red apple",
    "\u6211\u559c\u6b22\u5403\u82f9\u679c\u56e0\u4e3a\u5b83\u4eec\u5f88\u597d\u3002" * 6,
    "First we add the two numbers together.\nThen we check.\n" * 6,
]
NO_LOOPS = [
    "Blue light scatters most.",
    "hahaha, how funny",
    "-" * 60 + "\nText",
    "It is 1" + "0" * 60,
    "1. apple\n2. pear\n3. apple\n4. plum",
    "Yes.\nYes.\nNo.",
    "| a | b |\n| - | - |\n" + "| the same row again and again here | x |\n" * 6,
    "So:\n```\n" + "x = x + 1  # one more of the same kind\n" * 8 + "```",
    "def f():\n    for i in range(10): pass\n\n" * 4,
    "for (int i = 0; i < n; i++) {\n  a;\n}\n" * 4,
    # a refrain
    "\n".join(
        f"{verse}\nRow, row, row your boat gently down" for verse in ("the stream", "merrily", "life", "a dream")
    ),
    " ".join(str(number) for number in range(300)),
    # steps in like words
    "The number of words that Carl can type per hour is 50 * 60 = 3000. The number of words that Carl can type in 4 "
    "hours is 3000 * 4 = 12000. The number of words that Carl can type in 7 days is 12000 * 7 = 84000, which we found "
    "by multiplying.",
]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty"),
        (" .,! ", "empty"),
        ("### Response:\nBlue.", "echo"),
        ("### Response: because", "echo"),
        ("Blue.\n\n### Instruction:\nNext", "echo"),
        ("Below are an instruction that", "echo"),
        ("Your turn! What do you think?", "banned_phrase"),
        ("As the reference answer says, blue.", "banned_phrase"),
        ("Now it\N{RIGHT SINGLE QUOTATION MARK}s your turn", "banned_phrase"),
        ("As an AI language model, I cannot", "refusal"),
        (
            "I\N{RIGHT SINGLE QUOTATION MARK}m sorry, but I can\N{RIGHT SINGLE QUOTATION MARK}t help with that.",
            "refusal",
        ),
        ("Unfortunately, I cannot provide this.", "refusal"),
        ("**I'm unable to** do so", "refusal"),
        ("I do not have access to current data.", "refusal"),
        ("As a large language model, I", "refusal"),
        ("Sorry, I can't.", "refusal"),
        ("\u200b\n", "empty"),
        ("As the provided reference states, blue.", "banned_phrase"),
        ("In the reference solution, it is blue.", "banned_phrase"),
        ("Referring to the reference response, blue.", "banned_phrase"),
        ("The given answer is correct: blue.", "banned_phrase"),
        ("Here's a rewritten response: blue.", "banned_phrase"),
        ("Going by the answer provided, blue.", "banned_phrase"),
    ],
)
def test_faults(text, fault):
    assert text_fault(text, finished=True) == fault


@pytest.mark.parametrize(
    "text",
    [
        "### Instructions\n1. Boil the water.",
        "It is not your turn yet.",
        "I'm sorry, but the train has left.",
        "I can't help but notice the blue.",
        "As an AI researcher, Ada works on models.",
        "The robot said: as an AI language model, I dream.",
        "Unfortunately, it rained.",
        "Sorry, the shop is closed.",
        "I cannot provide enough praise for this book.",
        "{}",
        "[]",
        "\N{INFINITY}",
        "\N{GRINNING FACE}",
    ],
)
def test_texts_without_fault(text):
    assert text_fault(text, finished=True) is None


def test_an_answer_may_speak_of_a_given_answer_as_the_prompt_does():
    text = "The given answer is wrong, as 2 + 2 is 4."
    assert text_fault(text, finished=True, prompt="Is the Given Answer right? 2 + 2 = 5") is None
    assert text_fault(text, finished=True, prompt="How much is 2 + 2?") == "banned_phrase"


@pytest.mark.parametrize("phrase", BANNED_PHRASES)
def test_phrases_are_banned_in_any_case(phrase):
    assert text_fault(f"Well, {phrase.upper()} is fine", finished=True) == "banned_phrase"


def test_banned_phrases_may_be_chosen():
    assert text_fault("My response is blue", finished=True, banned=["Blue"]) == "banned_phrase"
    assert text_fault("My response is red", finished=True, banned=["Blue"]) is None


@pytest.mark.parametrize("text", LOOPS)
def test_loops_are_repetitive(text):
    assert text_fault(text, finished=False) == "repetition"


@pytest.mark.parametrize("text", NO_LOOPS)
def test_tables_code_refrains_and_like_steps_are_not_repetitive(text):
    assert text_fault(text, finished=True) is None


def test_a_sentence_that_the_prompt_leaves_open_is_completed():
    prompt = "If milk is going to be measured, it can be measured in"
    assert text_fault(f"{prompt} any kind of container.", finished=True, prompt=prompt) is None


def test_answers_that_start_with_the_prompt_echo_it():
    long = f"Read this.\n{' '.join(f'word{number}' for number in range(30))}"
    assert text_fault(f"{QUESTION} It is Everest.", finished=True, prompt=QUESTION) == "echo"
    assert text_fault(long.partition("\n")[2], finished=True, prompt=long) == "echo"
    assert text_fault("The tallest mountain in the world is Everest.", finished=True, prompt=QUESTION) is None
    assert text_fault("word0 word1 word2 and so on", finished=True, prompt=long) is None


def test_truncation_is_the_last_fault():
    assert text_fault("A fine start", finished=False) == "truncated"
    assert text_fault("As an AI language model, I", finished=False) == "refusal"
