"""Measurements that outlive the process that made them."""

import json
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from trl_prune.checkpoints import write_json


class Ledger(MutableMapping[str, float]):
    """What was measured, in a JSON file that is whole after every entry."""

    def __init__(self, path: Path):
        self.path = path
        self.told: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}

    def __getitem__(self, key: str) -> float:
        return self.told[key]

    def __setitem__(self, key: str, value: float) -> None:
        self.told[key] = value
        write_json(self.path, self.told)

    def __delitem__(self, key: str) -> None:
        del self.told[key]
        write_json(self.path, self.told)

    def __iter__(self) -> Iterator[str]:
        return iter(self.told)

    def __len__(self) -> int:
        return len(self.told)
