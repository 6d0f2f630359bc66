import pytest

from trl_prune.data.rewriting.extractors.phrase import normalized_phrase, states_phrase


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is **PARIS**, of course", "Paris"),
        ("The capital is  New\nYork.", "new york"),
        ("It is not spam, it is ham", "ham"),
        ("It's not ham but spam", "spam"),
        ("spam or not spam? It's spam.", "spam"),
        ("not only spam but worse", "spam"),
        ("Not spam.", "not spam"),
        ("This isn\N{RIGHT SINGLE QUOTATION MARK}t spam.", "not spam"),
        ("It is non-spam", "not spam"),
        ("No.", "no"),
        ("Yes, no doubt.", "yes"),
        ("There is no evidence, so the answer is yes", "yes"),
        ("It is not true.", "false"),
        ("'sci/tech'", "Sci/Tech"),
        ("No doubt it is spam", "spam"),
        ("Is it spam? Yes.", "spam"),
        ("Spam? Yes, it's spam", "spam"),
        ("Spam rather than ham", "spam"),
        ("far from spam", "not spam"),
        ("It is spam or ham.", "spam or ham"),
        ("Written in C++.", "C++"),
        ('It should read: "Who is it?" The verb needs an s.', "Who is it?"),
    ],
)
def test_stated_phrases(text, expected):
    assert states_phrase(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is not spam, it is ham", "spam"),
        ("not a spam", "spam"),
        ("It isn't really spam", "spam"),
        ("never spam", "spam"),
        ("no longer spam", "spam"),
        ("non-spam", "spam"),
        ("not considered to be spam", "spam"),
        ("It is spam. No, it is not spam.", "spam"),
        ("spam", "not spam"),
        ("the theory", "he"),
        ("anything", ""),
        ("", "spam"),
        ("Yes, no doubt", "no"),
        ("There is no evidence, so the answer is yes", "no"),
        ("It is not true", "true"),
        ("perhaps", "yes"),
        ("far from spam", "spam"),
        ("hardly spam", "spam"),
        ("I doubt that it is spam", "spam"),
        ("I doubt that it is spam", "not spam"),
        ("It is not clear whether it is spam", "spam"),
        ("It's either spam or ham", "spam"),
        ("It's either spam or ham", "ham"),
        ("ham or spam", "spam"),
        ("spam? No.", "spam"),
        ("Spam is unlikely", "spam"),
        ("positive rather than negative", "negative"),
        ("Sydney, unlike Canberra", "Canberra"),
        ("Yes and no", "yes"),
        ("I doubt that it is true", "true"),
        ("C++", "C"),
        ("It is C#.", "C"),
    ],
)
def test_denied_and_missing_phrases(text, expected):
    assert not states_phrase(text, expected)


def test_phrases_are_normalised():
    assert normalized_phrase(' "New\n York."  ') == "new york"
    assert normalized_phrase(" . ") is None
