"""Choose recovery rows: find duplicates, cluster, compare the pruned model with the dense one, and select."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trl_prune.data.selection.budget import resolve_budget
from trl_prune.data.selection.clustering import Clustering, cluster_rows
from trl_prune.data.selection.concepts import characteristic_phrases, extract_concepts
from trl_prune.data.selection.duplicates import equal_texts, near_duplicates
from trl_prune.data.selection.embedding import Embedder, embed_rows, write_embeddings
from trl_prune.data.selection.methods import METHODS, Request, select
from trl_prune.data.selection.paser import PaserSettings, Selection
from trl_prune.data.selection.pool import Pool
from trl_prune.data.selection.scoring import (
    ScoreSpec,
    answer_alone_cross_entropy,
    score_rows,
    write_answers_alone,
    write_scores,
)
from trl_prune.data.shared_blocks import BlocksOf
from trl_prune.data.sharing import SINGLE_PROCESS, ProcessShare
from trl_prune.data.teacher import LazyTeacher
from trl_prune.data.teacher_cache.sequences import PreparedRow
from trl_prune.errors import InputError


EMBEDDINGS, SCORES = "embeddings", "scores"
# Phrases that name a cluster.
PHRASES = 6


@dataclass(frozen=True)
class SelectionRows:
    """The rows to select from.

    Attributes:
        instructions: what is clustered, one text for each row of the dataset.
        texts: prompt and answer, by which equal rows are found, and from which concepts are taken.
        prepared: the rows that have a token of an answer to learn, tokenised as a trainer does it.
        prepared_rows: the index in the dataset of each of them, `(prepared,)`.
        tokens: the tokens of each of them, `(prepared,)`.
        answer_tokens: the tokens that are learned of each of them, `(prepared,)`.
        targets: what `rds` is to be near to.
    """

    instructions: Sequence[str]
    texts: Sequence[str]
    prepared: Sequence[PreparedRow]
    prepared_rows: np.ndarray
    tokens: np.ndarray
    answer_tokens: np.ndarray
    targets: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.instructions)

    @property
    def without_answer(self) -> int:
        """The number of rows without an answer, or whose answer is cut off."""
        return len(self) - len(self.prepared_rows)


@dataclass(frozen=True)
class SelectionModels:
    """What rows are measured with.

    Attributes:
        dense: the dense model.
        pruned: the pruned model, with the dense one's vocabulary.
        embedder: maps texts to vectors.
    """

    dense: LazyTeacher
    pruned: LazyTeacher
    embedder: Embedder


@dataclass(frozen=True)
class SelectionSpec:
    """One selection that is asked for.

    Attributes:
        method: a name in `METHODS`.
        budget: number of rows, or a share of the dataset's.
        seed: of its random draws.
        paser: how PASER chooses.
    """

    method: str
    budget: int | float
    seed: int = 0
    paser: PaserSettings = field(default_factory=PaserSettings)


@dataclass(frozen=True)
class SelectionSettings:
    """How rows are measured, and which selections are made.

    Attributes:
        selections: by name; `random_matched` has the lengths of the first.
        clusters: their number, `auto` for the rule in `clustering`, or 1 for none.
        near_duplicates: cosine similarity of two instructions from which their rows are one; None for equal texts.
        temperature, batch_tokens, resident, blocks_of: how the models are compared (`scoring.ScoreSpec`).
        seed: of the clustering.
    """

    selections: Mapping[str, SelectionSpec]
    clusters: int | str = "auto"
    near_duplicates: float | None = 0.95
    temperature: float = 1.0
    batch_tokens: int = 4096
    resident: bool = True
    blocks_of: BlocksOf | None = None
    seed: int = 0

    def needs(self, name: str) -> bool:
        """Return whether a selection reads a field of the pool."""
        return any(name in METHODS[spec.method].needs for spec in self.selections.values())

    @property
    def needs_embeddings(self) -> bool:
        """Whether texts are embedded."""
        has_clusters = self.needs("clusters") and self.clusters != 1
        return has_clusters or self.needs("target_similarity") or self.near_duplicates is not None

    @property
    def needs_scores(self) -> bool:
        """Whether the models read the rows."""
        return any(map(self.needs, ("divergence", "cross_entropy", "answer_alone_cross_entropy")))


@dataclass(frozen=True)
class SelectionResult:
    """The selections, and what they were made from.

    Attributes:
        selections: by name.
        pool: the candidates.
        clustering: of the candidates; None without clusters.
        phrases: of each cluster, the phrases that set it apart.
        duplicates: the number of rows that were left out because another stands for them.
        without_answer: the number left out because they have no answer.
        seconds: the duration of each part.
    """

    selections: dict[str, Selection]
    pool: Pool
    clustering: Clustering | None
    phrases: list[list[str]]
    duplicates: int
    without_answer: int
    seconds: dict[str, float]

    @property
    def own(self) -> Selection:
        """The first selection, to which the others are compared."""
        return next(iter(self.selections.values()))


@dataclass(frozen=True)
class SelectionRun:
    """Rows, models and settings of a selection, and the folder where measurements are kept.

    Attributes:
        rows: the rows to select from.
        models: what they are measured with.
        settings: how.
        folder: of the embeddings and scores, from which an interrupted selection is resumed.
    """

    rows: SelectionRows
    models: SelectionModels
    settings: SelectionSettings
    folder: Path

    def write_share(self, share: ProcessShare) -> None:
        """Compute one process's share of the embeddings and scores, as far as they are missing."""
        if self.settings.needs_embeddings:
            write_embeddings(self.rows.instructions, self.models.embedder, self.folder / EMBEDDINGS, share)
        if self.settings.needs_scores:
            write_scores(self.folder / SCORES, self._score_spec, share)
        if self.settings.needs("answer_alone_cross_entropy"):
            write_answers_alone(self.folder / SCORES, self._score_spec, share)

    def embeddings(self) -> np.ndarray:
        """Return the embedding of each row's instruction, `(rows, width)`."""
        return embed_rows(self.rows.instructions, self.models.embedder, self.folder / EMBEDDINGS)

    @property
    def _score_spec(self) -> ScoreSpec:
        settings, models = self.settings, self.models
        return ScoreSpec(
            self.rows.prepared,
            models.dense,
            models.pruned,
            settings.temperature,
            settings.batch_tokens,
            settings.resident,
            settings.blocks_of,
        )

    def run(self, share: ProcessShare = SINGLE_PROCESS) -> SelectionResult:
        """Measure the rows as far as that is not done, and make every selection.

        Args:
            share: with all batches; its progress is shown.

        Raises:
            InputError: there are too few rows for a budget or the number of clusters, or a model's numbers are not
                finite.
        """
        seconds: dict[str, float] = {}
        # Budgets are checked before the models read anything, and again without near duplicates.
        unique = self._without_equal_texts()
        with _timed(seconds, "measure"):
            self.write_share(share)
        with _timed(seconds, "cluster"):
            kept = self._without_near_duplicates(unique)
            clustering = self._cluster(kept)
        with _timed(seconds, "concepts"):
            pool = self._pool(kept, clustering, share)
        with _timed(seconds, "select"):
            selections = self._select(pool)
        phrases = [] if pool.concepts is None else characteristic_phrases(pool.concepts, pool.clusters, PHRASES)
        duplicates = len(self.rows.prepared_rows) - len(kept)
        return SelectionResult(selections, pool, clustering, phrases, duplicates, self.rows.without_answer, seconds)

    def _without_equal_texts(self) -> np.ndarray:
        """Return the rows with an answer, without those that repeat an earlier one."""
        usable = self.rows.prepared_rows
        first = equal_texts([self.rows.texts[index] for index in usable])
        unique = usable[first == np.arange(len(usable))]
        self._check_counts(len(unique))
        return unique

    def _without_near_duplicates(self, rows: np.ndarray) -> np.ndarray:
        if self.settings.near_duplicates is None:
            return rows
        first = near_duplicates(self.embeddings(), self.settings.near_duplicates, self.settings.seed, rows)
        kept = rows[first == np.arange(len(rows))]
        self._check_counts(len(kept))
        return kept

    def _check_counts(self, candidates: int) -> None:
        """Check that there are enough rows for every budget and for the number of clusters."""
        left_out = (
            f"{candidates:,} of {len(self.rows):,} rows can be selected: {self.rows.without_answer:,} have no answer "
            f"in their first tokens, {len(self.rows.prepared_rows) - candidates:,} are duplicates"
        )
        for name, spec in self.settings.selections.items():
            budget = self._budget(spec)
            if budget > candidates:
                raise InputError(f"the budget of {name!r} is {budget:,} rows, and {left_out}")
        clusters = self.settings.clusters
        if self.settings.needs("clusters") and clusters != "auto" and clusters > candidates:
            raise InputError(f"{clusters:,} clusters are asked for, and {left_out}")

    def _budget(self, spec: SelectionSpec) -> int:
        """Return a selection's number of rows; 1 where the method ignores it."""
        return 1 if METHODS[spec.method].sets_its_own_count else resolve_budget(spec.budget, len(self.rows))

    def _embeddings_of(self, rows: np.ndarray) -> np.ndarray:
        """Return some rows' embeddings, mapped from disk where these are all rows."""
        vectors = self.embeddings()
        return vectors if len(rows) == len(vectors) else vectors[rows]

    def _cluster(self, kept: np.ndarray) -> Clustering | None:
        if not self.settings.needs("clusters") or self.settings.clusters == 1:
            return None
        return cluster_rows(self._embeddings_of(kept), self.settings.clusters, self.settings.seed)

    def _pool(self, kept: np.ndarray, clustering: Clustering | None, share: ProcessShare) -> Pool:
        """Return the candidates with what was measured of them."""
        rows, settings = self.rows, self.settings
        positions = np.full(len(rows), -1)
        positions[rows.prepared_rows] = np.arange(len(rows.prepared_rows))
        prepared = positions[kept]
        measured: dict[str, object] = {}
        if settings.needs_scores:
            scores = score_rows(self.folder / SCORES, self._score_spec)
            measured |= {"divergence": scores.divergence[prepared], "cross_entropy": scores.cross_entropy[prepared]}
        if settings.needs("answer_alone_cross_entropy"):
            alone = answer_alone_cross_entropy(self.folder / SCORES, self._score_spec)
            measured["answer_alone_cross_entropy"] = alone[prepared]
        if settings.needs("target_similarity"):
            targets = self.models.embedder.embed(rows.targets)
            measured["target_similarity"] = np.asarray(self._embeddings_of(kept), dtype=np.float32) @ targets.T
        if settings.needs("clusters"):
            measured["clusters"] = np.zeros(len(kept), int) if clustering is None else clustering.labels
            measured["concepts"] = extract_concepts([rows.texts[index] for index in kept], progress=share.progress)
        return Pool(kept, rows.tokens[prepared], rows.answer_tokens[prepared], **measured)

    def _select(self, pool: Pool) -> dict[str, Selection]:
        selections: dict[str, Selection] = {}
        for name, spec in self.settings.selections.items():
            reference = next(iter(selections.values())).rows if selections else None
            request = Request(self._budget(spec), spec.seed, spec.paser, reference)
            selections[name] = select(spec.method, pool, request)
        return selections


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - start
