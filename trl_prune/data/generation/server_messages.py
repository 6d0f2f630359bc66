"""Conversations as OpenAI's API wants them, from rows that a table holds."""

import json

from trl_prune.data.generation.prompts import Message


def without_nulls(value: object) -> object:
    """Return a value without null entries of mappings: in a table every row has every row's keys."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def server_messages(messages: list[Message]) -> list[Message]:
    """Return messages whose tool calls have ids, and their arguments as JSON text; each result names its call.

    Datasets in TRL's format may leave the ids out: then results belong to the calls before them, in order.
    """
    sent, open_ids = [], []
    for index, message in enumerate(messages):
        changed = without_nulls(message)
        if changed.get("tool_calls"):
            changed["tool_calls"] = [
                _tool_call(call, f"call_{index}_{position}") for position, call in enumerate(changed["tool_calls"])
            ]
            open_ids = [call["id"] for call in changed["tool_calls"]]
        elif changed["role"] == "tool" and "tool_call_id" not in changed and open_ids:
            changed["tool_call_id"] = open_ids.pop(0)
        sent.append(changed)
    return sent


def _tool_call(call: dict, default_id: str) -> dict:
    function = call["function"]
    arguments = function.get("arguments", {})
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"type": "function", "id": default_id} | call | {"function": function | {"arguments": text}}
