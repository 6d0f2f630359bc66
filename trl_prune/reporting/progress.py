"""The progress of an evaluation on the terminal."""

from tqdm.auto import tqdm


LINE = "{desc}: {n:,}/{total:,} items{postfix} |{bar}| [{elapsed}<{remaining}]"
SECONDS_BETWEEN = 1.0


class ItemBar:
    """One line per model: how many of all tasks' items are done, the task of the last one, and the time left.

    Items whose answers were stored before count as done, but say nothing about the time that the others take; without
    others there is no line.

    Args:
        name: of the model.
        total: the number of items.
    """

    def __init__(self, name: str, total: int):
        self.name, self.total, self.stored = name, total, 0
        self.bar: tqdm | None = None

    def __call__(self, task: str, items: int, were_stored: bool) -> None:
        """Count finished items of a task."""
        if not were_stored:
            self.bar = self.bar or self._bar()
            self.bar.set_postfix_str(task, refresh=False)
            self.bar.update(items)
        elif self.bar is None:
            self.stored += items
        else:
            self.bar.initial += items
            self.bar.n += items

    def _bar(self) -> tqdm:
        options = {"bar_format": LINE, "mininterval": SECONDS_BETWEEN, "initial": self.stored}
        return tqdm(total=self.total, desc=f"evaluate {self.name}", **options)

    def __enter__(self) -> "ItemBar":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
