import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_prune.data.rewriting.agreement import CHECKS, answers_agree, deciding_check, offered_options
from trl_prune.data.starter import starter_rows


SPAM = "Is this message spam or legitimate? You won a car!"
SKY = "Air scatters blue light much more strongly than red light, so blue light reaches our eyes from everywhere."
OVEN_FIRE = (
    "Turn off the heat and cover the pan with a lid. Never pour water on it, because the burning oil would splatter."
)
ORDER = "Sort these animals from smallest to largest: elephant, sheep, mouse"
MEMBERS = "What is this text about: sports, cooking or travel? The goalkeeper saved it."


@pytest.mark.parametrize(
    ("instruction", "reference", "rewrite", "check"),
    [
        (SPAM, "spam", "This is not spam.", "option"),
        (SPAM, "not spam", "This is spam.", "option"),
        (SPAM, "spam", "It is legitimate, not spam.", "option"),
        (SPAM, "This looks like spam, because nobody gives a car away.", "This isn't spam.", "option"),
        (SPAM, "spam", "I cannot tell.", "fact"),
        (MEMBERS, "It belongs to sports, because it describes a goalkeeper.", "I would say travel.", "option"),
        (MEMBERS, "sports", "It may be sports or travel.", "option"),
        ("Is it a fruit?", "Yes.", "No, it is a vegetable.", "verdict"),
        ("Is it a fruit?", "No", "That is true.", "verdict"),
        (
            "Is it a fruit?",
            "Yes, it grows from a flower and holds small brown seeds.",
            "No. It holds no seeds.",
            "verdict",
        ),
        ("Is Sydney the capital?", "No, Canberra.", "No, Melbourne is.", "fact"),
        ("Can you tell?", "I don't know.", "I know it well.", "fact"),
        ("How much is it?", "The answer is 72.", "She sold 48 and 24, so the answer is 71.", "answer's number"),
        ("How much is it?", "48 + 24 = 72\n#### 72", "All in all she sold 62.", "answer's number"),
        ("When was it?", "1969", "It happened in 1968.", "answer's number"),
        (
            "When did they land?",
            "They landed in 1969 and stayed for many hours on the surface.",
            "They landed there in 1968.",
            "number",
        ),
        ("How cold is it?", "-5 degrees", "5 degrees", "fact"),
        ("What is x?", "The answer is -4", "It is 4", "answer's number"),
        ("What is x?", "-4", "It is 4", "answer's number"),
        ("What did it cost?", "$5 million", "$5 billion", "answer's number"),
        ("How did it go?", "The index rose by 5% in one day.", "The index rose by 5 points to 50%.", "fact"),
        (
            "How did it go?",
            "The large index of all stocks rose by 5% in one day.",
            "The index rose by 5 points to 50%.",
            "number",
        ),
        ("When?", "May 5", "5 June", "fact"),
        ("When?", "It happened early in May, after the long winter.", "It happened early in June.", "name"),
        ("喜欢吗", "我喜欢猫", "我不喜欢猫。", "fact"),
        ("喜欢吗", "我不喜欢猫", "我喜欢猫。", "fact"),
        ("Who won?", "Felix Dubois", "Felix Usman won the final.", "fact"),
        ("Who won?", "The final was won by Felix Dubois in sets.", "The final was won by Felix Usman.", "name"),
        (ORDER, "mouse, sheep, elephant", "sheep, mouse, elephant", "order"),
        (
            "Correct it.",
            'It should read: "He has gone home." The verb needs a participle here.',
            "He have gone home.",
            "quote",
        ),
        ("What about an oil fire?", OVEN_FIRE, "Pour water on it at once, so that the burning oil cools.", "denial"),
        (
            "Which tool tightens a bolt?",
            "You need a wrench that fits the head of the bolt. Turn it clockwise.",
            "You need a peeler that fits the head of the bolt.",
            "substitute",
        ),
        ("Why is the sky blue?", SKY, "Whiskers help a cat to feel objects in the dark.", "words"),
    ],
)
def test_contradictions_are_found(instruction, reference, rewrite, check):
    assert deciding_check(instruction, reference, rewrite) == (check, False)


@pytest.mark.parametrize(
    ("instruction", "reference", "rewrite"),
    [
        (SPAM, "spam", "I think this is spam rather than legitimate."),
        (SPAM, "legitimate", "This is not spam."),
        (SPAM, "spam", "This message is spam: nobody gives a car away."),
        (MEMBERS, "It belongs to sports, because it describes a goalkeeper.", "It is sports, not travel."),
        ("Is it a fruit?", "Yes.", "That is true."),
        ("Is it a fruit?", "no", "It isn't true."),
        ("Is it a fruit?", "Yes, it is a fruit.", "True."),
        ("Is Sydney the capital?", "No, Canberra.", "The capital is Canberra."),
        ("Can you tell?", "I don't know.", "I do not know that."),
        (
            "Is it a fruit?",
            "Yes, it grows from a flower and holds small brown seeds.",
            "It holds seeds, so it is one.",
        ),
        ("How much is it?", "The answer is 1,072.", "First 48, then 1024, so she sold 1072."),
        ("When was it?", "1969", "It was in 1969, and 600 million people watched."),
        ("When was it?", "In two weeks", "It was in 2 weeks, I think."),
        ("How cold is it?", "-5 degrees", "It is minus 5 degrees."),
        ("What is x?", "The answer is -4", "So x is \N{MINUS SIGN}4."),
        ("What did it cost?", "$5 million", "It cost 5,000,000 dollars."),
        ("What did it cost?", "$1 million", "A million dollars, or one million."),
        ("How did it go?", "It rose by 5%.", "It rose by five percent."),
        ("How many?", "5-10 people", "5 to 10 people"),
        ("When?", "May 5", "It was on 5 May."),
        ("May I?", "You may go home now.", "Yes, you can go home now."),
        ("喜欢吗", "我不喜欢猫", "我真的不喜欢猫。"),
        ("喜欢吗", "我喜欢猫", "不过我喜欢猫。"),
        ("Who won?", "Felix Dubois", "The final was won by Felix Dubois."),
        (ORDER, "mouse, sheep, elephant", "The order is mouse, sheep and elephant."),
        (
            "Correct it.",
            'It should read: "He has gone home." The verb needs a participle here.',
            'You should write "He has gone home".',
        ),
        (
            "What about an oil fire?",
            OVEN_FIRE,
            "Switch the stove off and put a lid on; water would make the oil splash.",
        ),
        ("What about an oil fire?", OVEN_FIRE, "Turn off the heat, cover the pan, and do not pour water on it."),
        ("Why is the sky blue?", SKY, "Blue light is scattered by the air far more than red."),
        (
            "Why is the sky blue?",
            SKY,
            "Because of Rayleigh scattering: blue light is spread in all directions by air.",
        ),
        ("List steps.", "1. Dig. 2. Plant. 3. Water the tree well.", "Dig first. Then plant the tree and water it."),
        (
            "为什么天空是蓝色的",
            "空气散射蓝光比红光强得多 所以蓝光从四面八方到达我们的眼睛。",
            "蓝光被空气散射得更多 从各个方向进入眼睛。",
        ),
        (
            "Warum?",
            "Die Luft streut blaues Licht viel stärker als rotes Licht.",
            "Blaues Licht wird von der Luft mehr gestreut.",
        ),
    ],
)
def test_honest_answers_agree(instruction, reference, rewrite):
    assert deciding_check(instruction, reference, rewrite)[1]


@given(st.text(), st.text())
def test_every_answer_agrees_with_itself_unless_it_contradicts_itself(instruction, answer):
    check, agree = deciding_check(instruction, answer, answer)
    assert agree or check == "denial"


PIECES = ["not ", "isn't ", "İs ", "spam", ", ", ". ", "or ", "3", '"', "No", "Ann "]
NUMBER_PIECES = ["-5", "\N{MINUS SIGN}", "%", " million ", "\u4e0d", "May "]
TEXTS = st.text() | st.lists(st.sampled_from(PIECES + NUMBER_PIECES)).map("".join)


@given(TEXTS, TEXTS, TEXTS)
def test_any_texts_can_be_compared(instruction, reference, rewrite):
    check, agree = deciding_check(instruction, reference, rewrite)
    assert agree is answers_agree(instruction, reference, rewrite)
    assert check in {*CHECKS, None}


def starter_answers(capability):
    rows = [row for row in starter_rows() if row["capability"] == capability]
    return [(row["prompt"][0]["content"], row["completion"][0]["content"]) for row in rows]


@pytest.mark.parametrize("capability", ["short_explanation", "commonsense"])
def test_the_order_of_sentences_does_not_matter_and_one_sentence_is_enough(capability):
    for instruction, reference in starter_answers(capability):
        sentences = re.split(r"(?<=[.!?]) ", reference)
        assert answers_agree(instruction, reference, " ".join(reversed(sentences)))
        assert answers_agree(instruction, reference, sentences[0])


def test_answers_to_other_questions_contradict():
    answers = starter_answers("short_explanation")
    others = [other for _, other in [*answers[1:], answers[0]]]
    agree = [answers_agree(*answer, other) for answer, other in zip(answers, others, strict=True)]
    assert sum(agree) < 0.1 * len(agree)


@pytest.mark.parametrize(
    ("instruction", "options"),
    [
        (SPAM, [["spam"], ["legit"]]),
        ("Is it a complaint, a request or praise?", [["compl"], ["reque"], ["prais"]]),
        (
            "Choose one: a marble slab, carrot cake batter or a stone.",
            [["marbl", "slab"], ["carro", "cake", "batte"], ["stone"]],
        ),
        ("Classify the sentiment (positive, negative, neutral): Fine.", [["posit"], ["negat"], ["neutr"]]),
        ("Why is the sky blue?", []),
    ],
)
def test_options_are_read_from_the_instruction(instruction, options):
    found = offered_options(instruction)
    assert all(option in found for option in options)
    assert bool(found) == bool(options)
