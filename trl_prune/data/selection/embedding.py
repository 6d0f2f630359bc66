"""Embeddings of texts: a sentence-transformers model, or the dense model's own hidden states."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from trl_prune.checkpoints import load_config, model_class
from trl_prune.data.selection.row_array import RowArray, missing_of_share
from trl_prune.data.sharing import SINGLE_PROCESS, ProcessShare
from trl_prune.data.teacher import LazyTeacher
from trl_prune.errors import InputError, first_line


if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel

SENTENCE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


EMBEDDINGS_FILE = "embeddings.npy"


# Rows that are embedded, and written, at once: an interrupted process loses at most these.
CHUNK_ROWS = 1024


# Entries of normalised vectors are at most 1, so float16 changes a cosine similarity by some 1e-4, far less than two
# wordings of a text do, and a million rows of width 384 take 0.8 GB instead of 1.5.
STORED_DTYPE = "float16"


# Values of each weight that the fingerprint of a sentence-transformers model is made of.
SAMPLES_PER_WEIGHT = 64


class Embedder(Protocol):
    """Maps texts to vectors.

    Attributes:
        fingerprint: changes when the vectors do.
        width: the length of a vector.
    """

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    @property
    def width(self) -> int: ...  # noqa: D102

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of texts, of length 1, `(texts, width)`, float32."""
        ...

    def release(self) -> None:
        """Free what is in memory; it is loaded again if needed."""
        ...


class SentenceEmbedder:
    """A sentence-transformers model, loaded when first needed.

    Attributes:
        name: its folder or hub id.
        batch_size: texts per forward pass.
    """

    def __init__(self, name: str | Path = SENTENCE_MODEL, batch_size: int = 32):
        self.name = str(name)
        self.batch_size = batch_size

    @cached_property
    def model(self) -> "SentenceTransformer":
        """The loaded model.

        Raises:
            InputError: sentence-transformers is not installed, or the model can be neither found nor downloaded.
        """
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise InputError(
                "sentence embeddings need the package sentence-transformers: install it with "
                '`pip install "trl-prune[select]"`, or embed by the dense model\'s hidden states instead'
            ) from error
        try:
            return SentenceTransformer(self.name)
        except (OSError, ValueError) as error:
            raise InputError(
                f"the sentence-transformers model {self.name!r} cannot be loaded ({first_line(error)}); name the "
                "folder or hub id of another, or embed by the dense model's hidden states instead"
            ) from error

    @cached_property
    def fingerprint(self) -> str:
        """Changes when the model's weights or the way it pools do."""
        digest = hashlib.sha256(repr(self.model).encode())
        for name, weight in sorted(self.model.state_dict().items()):
            sample = weight.flatten()[:: max(1, weight.numel() // SAMPLES_PER_WEIGHT)]
            digest.update(name.encode() + sample.float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def width(self) -> int:
        """The length of a vector."""
        return self.embed(["width"]).shape[1]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of texts, of length 1, `(texts, width)`, float32."""
        vectors = self.model.encode(
            list(texts), batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)

    def release(self) -> None:
        """Free the model; it is loaded again if needed."""
        self.__dict__.pop("model", None)


class HiddenStateEmbedder:
    """A causal LM's final hidden states, averaged with weights that rise with the position (RDS+, 2503.01807).

    Token i of a text counts `i / sum_j j`: a causal model has read more of the text at later tokens.

    Attributes:
        teacher: the model, loaded when first needed.
        max_tokens: tokens of a text that are read, the first ones; the model's context length at most.
        batch_tokens: tokens per forward pass, with padding.
    """

    def __init__(self, teacher: LazyTeacher, max_tokens: int = 512, batch_tokens: int = 4096):
        self.teacher = teacher
        self.max_tokens = min(max_tokens, teacher.max_model_len or max_tokens)
        self.batch_tokens = batch_tokens

    @cached_property
    def model(self) -> "PreTrainedModel":
        """The loaded model."""
        return self.teacher.load().eval()

    @property
    def fingerprint(self) -> str:
        """Changes when the model or the number of tokens does."""
        return f"{self.teacher.fingerprint}-{self.max_tokens}"

    @cached_property
    def width(self) -> int:
        """The length of a vector; known without loading the model where it has a folder."""
        model = self.model if self.teacher.folder is None else _without_weights(self.teacher.folder)
        return model.get_output_embeddings().weight.shape[1]

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of texts, of length 1, `(texts, width)`, float32."""
        sequences = [self._tokens(text) for text in texts]
        vectors = np.empty((len(texts), self.width), dtype=np.float32)
        for batch in self._batches([len(tokens) for tokens in sequences]):
            vectors[batch] = self._embed_batch([sequences[index] for index in batch]).cpu().numpy()
        return vectors

    def release(self) -> None:
        """Free the model; it is loaded again if needed."""
        self.__dict__.pop("model", None)

    def _tokens(self, text: str) -> Tensor:
        tokenizer = self.teacher.tokenizer
        ids = tokenizer(text, truncation=True, max_length=self.max_tokens)["input_ids"]
        if not ids:  # a text without tokens is what a model reads before the first one
            starts = (tokenizer.bos_token_id, tokenizer.eos_token_id, 0)
            ids = [next(token for token in starts if token is not None)]
        return torch.tensor(ids)

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        """Yield indices of texts of similar length, the longest first."""
        batch: list[int] = []
        for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
            if batch and (len(batch) + 1) * lengths[batch[0]] > self.batch_tokens:
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def _embed_batch(self, sequences: list[Tensor]) -> Tensor:
        ids = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
        lengths = torch.tensor([len(tokens) for tokens in sequences])
        positions = torch.arange(1, ids.shape[1] + 1)
        mask = positions <= lengths[:, None]
        device = self.model.device
        states = self.model.base_model(
            input_ids=ids.to(device), attention_mask=mask.long().to(device), use_cache=False
        ).last_hidden_state
        weights = (positions * mask).to(states.device, torch.float32)
        # A masked product, so that states of the padding, whatever they are, do not count.
        states = states.float().masked_fill(~mask.to(states.device)[:, :, None], 0)
        pooled = torch.einsum("bt,bth->bh", weights / weights.sum(1, keepdim=True), states)
        return torch.nn.functional.normalize(pooled, dim=-1)


def _without_weights(folder: Path) -> "PreTrainedModel":
    config = load_config(folder)
    with torch.device("meta"):
        return model_class(config).from_config(config)


def embed_rows(
    texts: Sequence[str], embedder: Embedder, folder: Path, share: ProcessShare = SINGLE_PROCESS
) -> np.ndarray:
    """Embed texts into a file, or what is missing of them, and return it mapped, `(texts, width)`, float16.

    Args:
        texts: one per row.
        embedder: the model.
        folder: where the file is kept; another embedder or other texts redo it.
        share: the chunks that this process embeds; all processes must share the folder.

    Raises:
        InputError: there are no texts, or vectors are not finite.
    """
    array = _embedding_array(texts, embedder, folder)
    _write(array, texts, embedder, share)
    share.wait_for_everyone()
    return array.read()


def write_embeddings(texts: Sequence[str], embedder: Embedder, folder: Path, share: ProcessShare) -> None:
    """Embed one process's share of texts; `embed_rows` then reads the vectors of all.

    Raises:
        InputError: as `embed_rows`.
    """
    _write(_embedding_array(texts, embedder, folder), texts, embedder, share)


def _embedding_array(texts: Sequence[str], embedder: Embedder, folder: Path) -> RowArray:
    if not texts:
        raise InputError("there are no texts to embed")
    key = f"{embedder.fingerprint}-{_texts_hash(texts)}"
    return RowArray(folder / EMBEDDINGS_FILE, (len(texts), embedder.width), key, STORED_DTYPE, CHUNK_ROWS)


def _write(array: RowArray, texts: Sequence[str], embedder: Embedder, share: ProcessShare) -> None:
    array.create()
    for chunk in share.progress(missing_of_share(array, share)):
        rows = array.rows_of(chunk)
        vectors = embedder.embed(texts[rows])
        _check_finite(vectors, rows.start)
        array.write(chunk, vectors)
    embedder.release()


def _texts_hash(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()[:16]


def _check_finite(vectors: np.ndarray, first_row: int) -> None:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise InputError(
            f"the embeddings of {len(bad)} rows are not finite, the first of row {first_row + bad[0]}; "
            "choose another embedding model"
        )
