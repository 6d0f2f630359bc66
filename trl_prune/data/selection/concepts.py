"""The concepts of a text: its keyphrases, found as RAKE does (Rose et al. 2010), without a model or a download."""

import functools
import re
import unicodedata
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS


# With the forms of "do" and "have" that scikit-learn's list leaves out.
STOP_WORDS = ENGLISH_STOP_WORDS | {"did", "does", "doing", "having", "just"}
MAX_PHRASE_WORDS = 3
# Longer ones are hashes and encoded data.
MAX_WORD_CHARACTERS = 40
# Words of one form, or whose singular is another word.
SINGULARS = frozenset(
    ["always", "economics", "lens", "mathematics", "news", "physics", "politics", "series", "species"]
)
APOSTROPHE = "\u2019"
CONTRACTED = ("'s", "'re", "'ll", "'ve", "'d", "'m")
# Vowel signs and accents, which are part of a word and which `\w` leaves out.
MARKS = (
    r"\u0300-\u036f\u0591-\u05bd\u05bf-\u05c7\u064b-\u065f\u0670"  # accents, Hebrew, Arabic
    r"\u0900-\u0963\u0966-\u0dff\u0e00-\u109f\u1780-\u17d3"  # from India to Cambodia
)
BREAKS = re.compile(rf"[^\w\s'\-{MARKS}]+|[\n\r]+|--+")
# Scripts without spaces: Han, Hiragana, Katakana.
UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]+")
# Bits of the filter of phrases seen before: 32 MiB.
SEEN_BITS = 2**28


@dataclass(frozen=True)
class Concepts:
    """The concepts of every row of a corpus, in compressed rows.

    Attributes:
        indptr: where each row's ids start, and the end of the last, `(rows + 1,)` int64.
        ids: the concepts of all rows, ascending within a row, `(total,)` int32.
        names: each concept's phrase, by id.
    """

    indptr: np.ndarray
    ids: np.ndarray
    names: list[str]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def of(self, row: int) -> list[int]:
        """Return a row's concepts, ascending."""
        return self.ids[self.indptr[row] : self.indptr[row + 1]].tolist()


def extract_concepts(
    texts: Iterable[str], limit: int = 10, min_rows: int = 2, progress: Callable[[Iterable], Iterable] = iter
) -> Concepts:
    """Return the concepts of a corpus: the keyphrases of each row that several rows have, numbered as they appear.

    One pass over the texts, one 8-byte number for each keyphrase of each row.

    Args:
        texts: one text per row.
        limit: how many keyphrases a row has at most, the best first (`keyphrases`).
        min_rows: in how many rows a keyphrase has to be.
        progress: wraps the texts in a progress bar.
    """
    keys, ends = array("q"), array("q", [0])
    names = _RepeatedNames(keep_all=min_rows < 2)
    for text in progress(texts):
        for phrase in keyphrases(text, limit):
            key = hash(phrase)
            names.add(key, phrase)
            keys.append(key)
        ends.append(len(keys))
    return _compressed(np.frombuffer(keys, dtype=np.int64), np.array(ends), names.by_key, min_rows)


def keyphrases(text: str, limit: int = 10) -> list[str]:
    """Return a text's keyphrases, distinct, best first.

    A word's score is its degree / its frequency (the words of the phrases it is in / their number), a phrase's score
    the sum of its words' (Rose et al. 2010). Of equal ones the more frequent comes first, then the earlier.
    """
    occurrences = Counter(candidate_phrases(text))
    frequency, degree = defaultdict(int), defaultdict(int)
    for phrase, count in occurrences.items():
        for word in phrase:
            frequency[word] += count
            degree[word] += count * len(phrase)
    ratio = {word: degree[word] / count for word, count in frequency.items()}

    def order(phrase: tuple[str, ...]) -> tuple[float, int]:
        return -sum([ratio[word] for word in phrase]), -occurrences[phrase]

    return [" ".join(phrase) for phrase in sorted(occurrences, key=order)[:limit]]


def candidate_phrases(text: str) -> list[tuple[str, ...]]:
    """Return the runs of one to three words between stop words, punctuation, line ends and numbers, in lower case.

    Plurals are made singular. A longer run, which English hardly has and text without English stop words has all
    over, counts as its single words; Chinese and Japanese as pairs of neighbouring characters.
    """
    text = text.lower().replace(APOSTROPHE, "'")
    phrases = []
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        phrases = [(pair,) for run in UNSPACED.findall(text) for pair in _character_pairs(run)]
        text = UNSPACED.sub("\n", text)
    for fragment in BREAKS.split(text):
        run: list[str] = []
        for token in fragment.split():
            word = _word(token)
            if word:
                run.append(word)
            else:
                phrases += _phrases_of(run)
                run = []
        phrases += _phrases_of(run)
    return phrases


def characteristic_phrases(concepts: Concepts, labels: np.ndarray, count: int) -> list[list[str]]:
    """Return, for each cluster, the phrases that tell it from the others, best first (class-based TF-IDF).

    A phrase's score in a cluster is its share of the cluster's phrases x log(1 + a / f), where f is how often the
    phrase occurs in all and a the mean number of phrases in a cluster.

    Args:
        concepts: of the rows.
        labels: the rows' clusters, `(rows,)`.
        count: how many phrases a cluster gets at most.
    """
    clusters = int(labels.max(initial=-1)) + 1
    columns, rows = concepts.ids, np.repeat(labels, np.diff(concepts.indptr))
    occurrences = csr_matrix((np.ones(len(columns)), (rows, columns)), shape=(clusters, len(concepts.names)))
    in_all = np.asarray(occurrences.sum(axis=0)).ravel()
    rarity = np.log1p(occurrences.sum() / max(clusters, 1) / np.maximum(in_all, 1))
    phrases = []
    for cluster in range(clusters):
        part = slice(*occurrences.indptr[cluster : cluster + 2])
        ids = occurrences.indices[part]
        best = np.lexsort((ids, -occurrences.data[part] * rarity[ids]))[:count]
        phrases.append([concepts.names[concept] for concept in ids[best]])
    return phrases


def _character_pairs(run: str) -> list[str]:
    return ["".join(pair) for pair in pairwise(run)] or [run]


def _phrases_of(run: list[str]) -> list[tuple[str, ...]]:
    if len(run) > MAX_PHRASE_WORDS:
        return [(word,) for word in run]
    return [tuple(run)] if run else []


@functools.lru_cache(maxsize=2**17)
def _word(token: str) -> str:
    """Return a token in the singular, without contracted ending; empty where it is a stop word or no word."""
    word = token.strip("'-_")
    for ending in CONTRACTED:
        word = word.removesuffix(ending)
    is_word = 1 < len(word) <= MAX_WORD_CHARACTERS and not word[0].isdecimal() and not word.endswith("n't")
    return _singular(word) if is_word and word not in STOP_WORDS else ""


def _singular(word: str) -> str:
    if len(word) < 4 or word in SINGULARS or word.endswith(("ss", "us", "is")) or not word.endswith("s"):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return word[:-2]
    return word[:-1]


class _RepeatedNames:
    """The names of the phrases that were added twice; of the others, by far the most, only a bit is kept.

    Attributes:
        by_key: each phrase's name. Phrases of one bit are kept as well, which costs memory only.
    """

    def __init__(self, keep_all: bool) -> None:
        self.by_key: dict[int, str] = {}
        self._seen = bytearray(b"\xff") if keep_all else bytearray(SEEN_BITS // 8)

    def add(self, key: int, name: str) -> None:
        byte, bit = (key >> 3) % len(self._seen), 1 << (key & 7)
        if self._seen[byte] & bit:
            self.by_key.setdefault(key, name)
        else:
            self._seen[byte] |= bit


def _compressed(keys: np.ndarray, indptr: np.ndarray, names: dict[int, str], min_rows: int) -> Concepts:
    """Return concepts from the keys of each row's phrases, leaving out those of fewer than `min_rows` rows."""
    distinct, first, inverse, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(counts >= min_rows)
    kept = kept[np.argsort(first[kept])]
    numbers = np.full(len(distinct), -1, dtype=np.int64)
    numbers[kept] = np.arange(len(kept))
    ids = numbers[inverse]
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    # One number for row and id, so that one sort in place orders ids within rows.
    width = max(len(kept), 1)
    ordered = (rows * width + ids)[ids >= 0]
    ordered.sort()
    per_row = np.bincount(ordered // width, minlength=len(indptr) - 1)
    return Concepts(
        indptr=np.concatenate([[0], np.cumsum(per_row)]).astype(np.int64),
        ids=(ordered % width).astype(np.int32),
        names=[names[key] for key in distinct[kept].tolist()],
    )
