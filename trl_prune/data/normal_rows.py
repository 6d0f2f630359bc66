"""One row, however it is spelt, in one of TRL's formats."""

from collections.abc import Mapping
from itertools import chain

from trl_prune.data.formats import FORMAT_COLUMNS, FORMATS, Message, Row


# The column that TRL renames to `messages`.
CONVERSATIONS = "conversations"
# ShareGPT's keys of a message, which TRL converts, and its roles, which no chat template knows.
SHAREGPT_KEYS = {"from": "role", "value": "content"}
SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}
# What an assistant may say instead of text; the content is null then.
CALLS = ("tool_calls", "function_call")
TEXT, MESSAGES = "text", "a list of one message or more"
EITHER = f"{TEXT} or {MESSAGES}"
WANTED = {"prompt": EITHER, "completion": EITHER, "messages": MESSAGES, "text": TEXT}
# Characters of a value in an error.
QUOTED = 60


class RowFault(ValueError):
    """What is wrong with a row.

    Args:
        column: the column, or the place inside it, such as `messages[1].content`; empty for the whole row.
        found: what is there; of the whole row, what it is or has.
        wanted: what is allowed.
    """

    def __init__(self, column: str, found: str, wanted: str):
        self.column = column
        subject = f"column {column} is" if column else "the row"
        # Names of columns and roles may have line breaks.
        super().__init__(" ".join(f"{subject} {found}; wanted: {wanted}".split()))


def normal_row(row: object) -> dict[str, object]:
    """Return a row in the first of `FORMATS` whose columns it has, without the columns of other formats.

    Conversations have TRL's keys and roles, each content is one text, and keys without a value are left out. All other
    columns stay as they are.

    Raises:
        RowFault: the row has none of the formats, or a value that cannot be trained on.
    """
    if not isinstance(row, Mapping):
        raise RowFault("", f"is {_shown(row)}", "an object with the columns " + " or ".join(FORMATS))
    values = _spelt_once(row)
    columns = next((names for names in FORMAT_COLUMNS if _has(values, names)), None)
    if columns is None:
        raise _no_format(values)
    content = _CONTENTS[columns](values)
    others = {name: value for name, value in values.items() if name not in chain(*FORMAT_COLUMNS)}
    return content | others


def _spelt_once(row: Row) -> Row:
    """Return a row with its conversation in `messages`, which goes before `conversations`."""
    if row.get("messages") is not None or CONVERSATIONS not in row:
        return {name: value for name, value in row.items() if name != CONVERSATIONS}
    return {"messages" if name == CONVERSATIONS else name: row[name] for name in row if name != "messages"}


def _has(row: Row, names: tuple[str, ...]) -> bool:
    return all(row.get(name) is not None for name in names)


def _no_format(row: Row) -> RowFault:
    present = [names for names in FORMAT_COLUMNS if any(name in row for name in names)]
    if not present:
        return RowFault("", f"has the columns {', '.join(map(str, row)) or 'none'}", " or ".join(FORMATS))
    # Of a prompt and a completion one may be missing; other columns, such as the prompt of `messages`, may be notes.
    names = max(present, key=lambda names: (all(name in row for name in names), any(row.get(name) for name in names)))
    missing = next(name for name in names if row.get(name) is None)
    return RowFault(missing, "null" if missing in row else "missing", WANTED[missing])


def _plain_text(row: Row) -> dict[str, object]:
    return {"text": _text("text", row["text"])}


def _messages(row: Row) -> dict[str, object]:
    return {"messages": _conversation("messages", row["messages"])}


def _prompt_and_completion(row: Row) -> dict[str, object]:
    prompt, completion = (_text_or_conversation(name, row[name]) for name in FORMAT_COLUMNS[0])
    if completion == []:
        raise RowFault("completion", "[]", EITHER)
    if isinstance(prompt, str) and isinstance(completion, str):
        return {"prompt": prompt, "completion": completion}
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    answered = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
    # TRL reads the first message of a prompt; without one the row is a conversation.
    return {"prompt": asked, "completion": answered} if asked else {"messages": answered}


_CONTENTS = dict(zip(FORMAT_COLUMNS, (_prompt_and_completion, _messages, _plain_text), strict=True))


def _text(place: str, value: object, wanted: str = TEXT) -> str:
    if not isinstance(value, str):
        raise RowFault(place, _shown(value), wanted)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowFault(place, f"no valid Unicode ({ascii(value)[:QUOTED]})", wanted) from error
    return value


def _text_or_conversation(column: str, value: object) -> str | list[Message]:
    if isinstance(value, list):
        return [_message(f"{column}[{index}]", message) for index, message in enumerate(value)]
    return _text(column, value, EITHER)


def _conversation(column: str, value: object) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise RowFault(column, _shown(value), MESSAGES)
    return _text_or_conversation(column, value)


def _message(place: str, message: object) -> Message:
    if not isinstance(message, Mapping):
        raise RowFault(place, _shown(message), "a message with role and content")
    # A table fills the keys that other messages have with nulls, which templates take for values.
    named = {_key(name, message): value for name, value in message.items() if value is not None}
    role = _text(f"{place}.role", named.pop("role", None), "the name of a role")
    if "role" not in message:
        role = SHAREGPT_ROLES.get(role, role)
    says_otherwise = any(named.get(name) for name in CALLS)
    return {"role": role, "content": _content(f"{place}.content", named.pop("content", None), says_otherwise)} | named


def _key(name: str, message: Mapping[str, object]) -> str:
    """Return TRL's name of a message's key; a key that has it already goes first."""
    renamed = SHAREGPT_KEYS.get(name, name)
    return name if renamed in message else renamed


def _content(place: str, value: object, may_be_null: bool) -> str:
    if value is None and may_be_null:
        return ""
    if isinstance(value, list):
        return "".join(_part(f"{place}[{index}]", part) for index, part in enumerate(value))
    return _text(place, value)


def _part(place: str, part: object) -> str:
    """Return the text of a part of a content; templates that take parts write one after the other."""
    if isinstance(part, Mapping):
        kind = part.get("type")
        if kind not in (None, "text"):
            raise RowFault(place, f"a part of the type {kind!r}", "parts of the type 'text'")
        return _text(f"{place}.text", part.get("text"))
    return _text(place, part)


def _shown(value: object) -> str:
    if value is None:
        return "null"
    text = ascii(value)
    return text if len(text) <= QUOTED else f"{text[:QUOTED]}..."
