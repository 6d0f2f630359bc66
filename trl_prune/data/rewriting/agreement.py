"""Whether a rewritten open answer contradicts its reference, by the facts that both texts state.

No model is asked. A rewrite contradicts the reference if it gives the opposite verdict, lacks a fact of the reference
and states another of its kind (an option that the instruction offers, a number, a name), denies what the reference
affirms, or has too few words in common with it. What it adds or leaves out does not matter otherwise, unless the
reference is short: then all of it is the fact. `benchmarks/acceptance.py` compares this rule with those that ask the
dense model.
"""

import re
from collections.abc import Callable
from decimal import Decimal


# A reference with at most this many words that carry meaning is one fact.
SHORT_WORDS = 4
# Share of the shorter text's words that the other must contain.
SHARED_WORDS = 0.15
# A negator denies this many words that carry meaning, up to the end of its clause.
DENIED_WORDS = 3
# Two mentions of a word are about the same if of the words up to NEAR_WORDS before and after it SAME_NEAR are equal.
NEAR_WORDS, SAME_NEAR = 3, 2
# A word is replaced if so many words around it are the same.
SAME_AROUND = 5
# Words are compared by this many letters, so that inflected forms are equal.
STEM_LETTERS = 5
# Fewer words in quotation marks are a term.
QUOTED_WORDS = 3

# A run of letters and digits, with a number's sign and percent, or one sign of a script without spaces.
WORD = re.compile(r"[぀-ヿ㐀-鿿]|(?:\u2212(?=\d))?[^\W぀-ヿ㐀-鿿]+(?:[.:]\d+|'\w+)*(?:(?<=\d)%)?")
SENTENCE_END = re.compile(r"[.;:!?](?=\s|$)|[\n\u3002\uff01\uff1f\uff1b]")
CLAUSE_END = re.compile(r", |\uff0c|,? \b(?:but|so|because|since|and|which|that)\b")
NEGATOR = re.compile(
    r"\b(?:not(?! only)|no|never|neither|nor|cannot|without|rather than|instead of|\w+n't)\b|不(?![仅只但过断管同])|没"
)
YES = re.compile(
    r"\W*(?:yes|indeed|true|correct|right)(?:[.,;:!]|$)|.*(?:\bis|'s) (?:true|correct|right)\b|.*\banswer is yes\b"
    r"|i think so"
)
NO = re.compile(
    r"\W*(?:no|false|incorrect|wrong)(?:[.,;:!]|$)|.*(?:\bis not|\bisn't|'s not) (?:true|correct|right)\b"
    r"|.*(?:\bis|'s) (?:false|incorrect|wrong)\b|.*\banswer is no\b|i don't think so"
)
VERDICTS = {"true", "corre", "right", "indee", "false", "incor", "wrong"}
OPTIONS = re.compile(
    r"(?<![\w'-])(?:(?:[\w'-]+, )*[\w'-]+,? or (?:as |is )?[\w'-]+|(?:[\w'-]+, )+[\w'-]+,? and [\w'-]+)"
)
LISTED_OPTIONS = re.compile(r"(?<=[:(] )(?:[^,.:()\n]+, )+[^,.:()\n]+|(?<=\()(?:[^,.:()\n]+, )+[^,.:()\n]+")
OPTION_END = re.compile(r", (?:or |and )?|,? (?:or|and) (?:as |is )?")
LIST = re.compile(r"(?:[^,.:;\n]+, )+[^,.:;\n]+")
DIGITS = re.compile(r"\u2212?\d+(?:\.\d+)?")
STATED_NUMBER = re.compile(r"(?:answer is|answer:|####)[^\d.]*?(\u2212?\d+(?:\.\d+)?)")
# Of the words: those that begin with a digit, and those with a capital within a sentence.
NUMBER = re.compile(r"\u2212?\d")
ENUMERATION = re.compile(r"(?:^|(?<=\s))\(?\d+[.)](?=\s)")
NAME = re.compile(r"(?<=[\w,] )[A-Z]\w{2}")
ANSWER_QUOTE = re.compile(r'(?:^|: ?)"([^"]+)"')
MINUS = "\N{MINUS SIGN}"
SIGN = re.compile(r"(?<![\w)\].,%-])[-\u2212](?=[$€£]?\d)|(?<!\d )\b(?:minus|negative) (?=[$€£]?\d)")
SCALED = re.compile(r"(\d+(?:\.\d+)?)[ -](hundred|thousand|million|billion|trillion)\b")
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
# The month, where the verb would have no capital or no number beside it.
MAY = re.compile(r"(?<=[\w,] )May\b|\bMay(?= \d)|(?<=\d\. )May\b")
NUMERALS = {
    "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
    "ten": "10", "eleven": "11", "twelve": "12",
}  # fmt: skip
_ENGLISH = (
    "a about all also an and answer any are as at be because been but by can cannot could do does each for from "
    "had has have he her his how i if in instead into is it its may me might my neither never no nor not of on "
    "one or other our out over rather say she should so some such than that the their them then there these they "
    "this those to too up us was we were what when where which while who why will with without would yes you your "
)
FUNCTION_WORDS = frozenset([*_ENGLISH.split(), "不", "没"])


# Each function returns whether the answers agree, or None if that remains open.
Check = Callable[[str, str, str], bool | None]


def answers_agree(instruction: str, reference: str, rewrite: str) -> bool:
    """Return whether a rewritten answer states nothing that contradicts the reference.

    Args:
        instruction: the user's message; the options that it offers are known from it.
        reference: the right answer.
        rewrite: the answer to judge.
    """
    return deciding_check(instruction, reference, rewrite)[1]


def deciding_check(instruction: str, reference: str, rewrite: str) -> tuple[str | None, bool]:
    """Return the name of the check that decides whether two answers agree, None if none does, and whether they do."""
    texts = [_plain(text) for text in (instruction, reference, rewrite)]
    for name, check in CHECKS.items():
        agree = check(*texts)
        if agree is not None:
            return name, agree
    return None, True


def _plain(text: str) -> str:
    """Return a text without markup, with typewriter quotes and numbers in one form.

    They are in digits without thousands separators, `MINUS` is their sign and nothing else, `%` stands for percent.
    """
    text = re.sub("[\u2018\u2019]", "'", re.sub("[\u201c\u201d]", '"', text))
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", re.sub(r"[*_`]", "", text))
    text = re.sub(r"\b[a-zA-Z]+\b", lambda word: NUMERALS.get(word[0].lower(), word[0]), text)
    text = re.sub(r"\b(?:one|an?) (?=(?:hundred|thousand|million|billion|trillion)\b)", "1 ", text)
    text = re.sub(r"(?<=\d)(?: %| ?per ?cent\b)", "%", SCALED.sub(_scaled, MAY.sub("Maymonth", text)))
    text = re.sub(r"\u2212([$€£])", rf"\1{MINUS}", SIGN.sub(MINUS, text))
    return re.sub(r"\u2212(?!\d)|(?<=[\w)\]])\u2212", "-", text)


def _scaled(number: re.Match) -> str:
    value = f"{Decimal(number[1]).scaleb(SCALES[number[2]]):f}"
    return value.rstrip("0").rstrip(".") if "." in value else value


def _words(text: str) -> list[str]:
    """Return the stems of the words that carry meaning, in order."""
    words = WORD.findall(text.lower())
    return [_stem(word) for word in words if word not in FUNCTION_WORDS and not word.endswith("n't")]


def _stem(word: str) -> str:
    word = word.removesuffix("'s")
    return word if NUMBER.match(word) else word.removesuffix("s")[:STEM_LETTERS]


def _contains(words: list[str], phrase: list[str]) -> bool:
    return any(words[start : start + len(phrase)] == phrase for start in range(len(words) - len(phrase) + 1))


def _is_short(reference: str) -> bool:
    return len(_words(reference)) <= SHORT_WORDS


def _mentions(text: str) -> dict[str, list[tuple[bool, set[str]]]]:
    """Return for each stem its mentions: whether it is denied, and the stems near it."""
    mentions: dict[str, list[tuple[bool, set[str]]]] = {}
    for sentence in SENTENCE_END.split(text.lower()):
        marked = [mark for clause in CLAUSE_END.split(sentence) for mark in _marked(clause)]
        for place, (stem, denied) in enumerate(marked):
            near = {other for other, _ in marked[max(place - NEAR_WORDS, 0) : place + NEAR_WORDS + 1]}
            mentions.setdefault(stem, []).append((denied, near - {stem}))
    return mentions


def _marked(clause: str) -> list[tuple[str, bool]]:
    """Return the stems of a clause and whether each is denied."""
    affirmed, *negated = NEGATOR.split(clause)
    marked = [(stem, False) for stem in _words(affirmed)]
    return marked + [(stem, place < DENIED_WORDS) for part in negated for place, stem in enumerate(_words(part))]


def _same_verdict(instruction: str, reference: str, rewrite: str) -> bool | None:
    wanted, given = _verdict(reference), _verdict(rewrite)
    if wanted is None:
        return None
    says_more = set(_words(reference)) - VERDICTS - set(_words(instruction))
    if given is None or wanted == given:
        return None if says_more else wanted == given
    return False


def _verdict(text: str) -> bool | None:
    """Return whether a text begins with yes or something like it, False for no, None for neither."""
    start = re.split(r"(?<=[.!?,;:])\s", text.lower().strip())[0]
    if NO.match(start):
        return False
    return True if YES.match(start) else None


def _same_option(instruction: str, reference: str, rewrite: str) -> bool | None:
    options = offered_options(instruction)
    wanted = _stated(reference, options)
    if len(wanted) != 1:
        return None
    given = _stated(rewrite, options)
    if wanted[0] not in given and (given or _contains(_words(rewrite), wanted[0])):
        return False
    return given == wanted if given and _is_short(reference) else None


def offered_options(instruction: str) -> list[list[str]]:
    """Return the stems of each option that an instruction offers to choose from; none if it offers none."""
    text = re.sub(r"\b(?:an?|the) ", "", instruction.lower())
    found = [*OPTIONS.findall(text), *LISTED_OPTIONS.findall(text)]
    options = dict.fromkeys(tuple(_words(option)) for listed in found for option in OPTION_END.split(listed))
    return [list(option) for option in options if option]


def _stated(text: str, options: list[list[str]]) -> list[list[str]]:
    """Return the options that a text affirms; of two, it affirms one by denying the other."""
    words, mentions = _words(text), _mentions(text)
    mentioned = [option for option in options if _contains(words, option)]
    denied = [option for option in mentioned if any(all(no for no, _ in mentions[stem]) for stem in option)]
    if len(options) == 2 and len(mentioned) == len(denied) == 1:
        return [option for option in options if option not in denied]
    return [option for option in mentioned if option not in denied]


def _same_order(instruction: str, reference: str, rewrite: str) -> bool | None:
    """Compare the order of a list's items if all of them are the instruction's."""
    items = [_words(item) for item in max(map(OPTION_END.split, LIST.findall(reference)), key=len, default=[])]
    known = _words(instruction)
    if len(items) < 3 or not all(item and _contains(known, item) for item in items):
        return None
    words = " ".join(_words(rewrite))
    places = [words.find(" ".join(item)) for item in items]
    return None if -1 not in places and places == sorted(places) else False


def _same_fact(instruction: str, reference: str, rewrite: str) -> bool | None:
    """Look for the words that a short reference adds to the instruction, or for all in order if it adds none."""
    phrase, words, known = _words(reference), _words(rewrite), set(_words(instruction))
    if not 0 < len(phrase) <= SHORT_WORDS:
        return None
    fact = [stem for stem in phrase if stem not in known]
    if not (set(fact) <= set(words) if fact else _contains(words, phrase)):
        return False
    wanted, given = _mentions(reference), _mentions(rewrite)
    return all({no for no, _ in wanted[stem]} & {no for no, _ in given[stem]} for stem in fact or phrase)


def _same_number(_: str, reference: str, rewrite: str) -> bool | None:
    """Compare the number that the reference states as its answer with the one of the rewrite, or its last numbers."""
    wanted = STATED_NUMBER.findall(reference.lower())
    if not wanted and len(_words(reference)) == 1:
        wanted = DIGITS.findall(reference)
    if not wanted:
        return None
    sentences = [DIGITS.findall(sentence) for sentence in SENTENCE_END.split(rewrite)]
    last = next(filter(None, reversed(sentences)), [])
    given = STATED_NUMBER.findall(rewrite.lower())[-1:] or last
    return _value(wanted[-1]) in map(_value, given)


def _value(number: str) -> float:
    return float(number.replace(MINUS, "-"))


def _same_quote(instruction: str, reference: str, rewrite: str) -> bool | None:
    """Compare the text that the reference quotes as its answer, after a colon; the instruction's text is none."""
    quotes = [WORD.findall(quote.lower()) for quote in ANSWER_QUOTE.findall(reference)]
    known, words = WORD.findall(instruction.lower()), WORD.findall(rewrite.lower())
    answers = [quote for quote in quotes if len(quote) >= QUOTED_WORDS and not _contains(known, quote)]
    return _contains(words, answers[0]) if len(answers) == 1 else None


def _no_other(pattern: re.Pattern[str]) -> Check:
    """Return a check that a text states no other fact in place of one of the reference's."""

    def no_other(instruction: str, reference: str, rewrite: str) -> bool | None:
        missing = _facts(pattern, reference) - set(_words(rewrite))
        other = _facts(pattern, rewrite) - {*_words(reference), *_words(instruction)}
        return False if missing and other else None

    return no_other


def _facts(pattern: re.Pattern[str], text: str) -> set[str]:
    """Return the stems of the words that begin with a match."""
    text = ENUMERATION.sub(" ", text)
    found = {word[0].lower() for word in WORD.finditer(text) if pattern.match(text, word.start())}
    return {_stem(word) for word in found - FUNCTION_WORDS}


def _no_denial(_: str, reference: str, rewrite: str) -> bool | None:
    wanted, given = _mentions(reference), _mentions(rewrite)
    for stem in wanted.keys() & given.keys():
        for denied, near in given[stem]:
            alike = [no for no, around in wanted[stem] if len(near & around) >= min(SAME_NEAR, len(near))]
            if alike and denied not in alike:
                return False
    return None


def _no_substitute(_: str, reference: str, rewrite: str) -> bool | None:
    """Look for another word in place of one of the reference's first sentence, which is where the answer stands."""
    sentence, given = (WORD.findall(text.lower()) for text in (SENTENCE_END.split(reference)[0], rewrite))
    kept = FUNCTION_WORDS.union(given)
    for place, word in enumerate(sentence):
        left = sentence[max(place - SAME_AROUND // 2, 0) : place]
        right = sentence[place + 1 : place + 1 + SAME_AROUND - len(left)]
        if word not in kept and len(left) + len(right) == SAME_AROUND and _has_between(given, left, right):
            return False
    return None


def _has_between(words: list[str], left: list[str], right: list[str]) -> bool:
    """Return whether some word stands between two runs of words."""
    between = len(left)
    runs = (words[start : start + SAME_AROUND + 1] for start in range(len(words) - SAME_AROUND))
    return any(run[:between] == left and run[between + 1 :] == right for run in runs)


def _enough_words(_: str, reference: str, rewrite: str) -> bool | None:
    wanted, given = set(_words(reference)), set(_words(rewrite))
    return None if len(wanted & given) >= SHARED_WORDS * min(len(wanted), len(given)) else False


CHECKS: dict[str, Check] = {
    "verdict": _same_verdict,
    "option": _same_option,
    "order": _same_order,
    "answer's number": _same_number,
    "fact": _same_fact,
    "quote": _same_quote,
    "number": _no_other(NUMBER),
    "name": _no_other(NAME),
    "denial": _no_denial,
    "substitute": _no_substitute,
    "words": _enough_words,
}
