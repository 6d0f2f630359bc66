"""Measurements in a JSON file, so that an interrupted search resumes with those it has made."""

import json
import math
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from trl_prune.checkpoints import write_json


class Ledger(MutableMapping[str, float]):
    """A mapping that is written to its JSON file, atomically, at every change."""

    def __init__(self, path: Path):
        self.path = path
        stored = json.loads(path.read_text()) if path.is_file() else {}
        # JSON has no infinity, the score of a model that gives no numbers.
        self.values_by_key: dict[str, float] = {
            key: math.inf if value is None else value for key, value in stored.items()
        }

    def __getitem__(self, key: str) -> float:
        return self.values_by_key[key]

    def __setitem__(self, key: str, value: float) -> None:
        self.values_by_key[key] = value
        write_json(self.path, self.values_by_key)

    def __delitem__(self, key: str) -> None:
        del self.values_by_key[key]
        write_json(self.path, self.values_by_key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_key)

    def __len__(self) -> int:
        return len(self.values_by_key)
