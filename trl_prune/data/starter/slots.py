"""Words that fill the slots of word problems and passages."""

from trl_prune.data.starter.files import Entry, read_yaml


class SlotWords(Entry):
    """The words to draw from, by kind; a time has the slot `minutes`."""

    names: tuple[str, ...]
    surnames: tuple[str, ...]
    cities: tuple[str, ...]
    months: tuple[str, ...]
    times: tuple[str, ...]
    minutes: tuple[str, ...]
    items: tuple[str, ...]
    companies: tuple[str, ...]
    festivals: tuple[str, ...]
    landmarks: tuple[str, ...]
    jobs: tuple[str, ...]
    pets: tuple[str, ...]


def slot_words() -> SlotWords:
    """Return the words of `templates/slots.yaml`."""
    return read_yaml("templates/slots.yaml", SlotWords)
