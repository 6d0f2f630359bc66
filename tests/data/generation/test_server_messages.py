from trl_prune.data.generation.server_messages import server_messages, without_nulls


CALL = {"type": "function", "function": {"name": "clock", "arguments": {"zone": "UTC", "city": None}}}


def test_nulls_of_a_table_are_left_out():
    tool = {"name": "clock", "parameters": {"properties": {"zone": {"type": "string"}, "city": None}}}
    assert without_nulls([tool]) == [{"name": "clock", "parameters": {"properties": {"zone": {"type": "string"}}}}]


def test_tool_calls_have_ids_and_arguments_as_text():
    messages = [
        {"role": "user", "content": "Time?", "tool_calls": None, "name": None},
        {"role": "assistant", "content": None, "tool_calls": [CALL, CALL | {"id": "mine"}]},
        {"role": "tool", "content": "12:00", "tool_calls": None},
        {"role": "tool", "content": "12:01", "tool_calls": None},
        {"role": "assistant", "content": "Noon.", "tool_calls": None},
    ]
    user, calls, first, second, answer = server_messages(messages)
    assert user == {"role": "user", "content": "Time?"}
    assert [call["id"] for call in calls["tool_calls"]] == ["call_1_0", "mine"]
    assert calls["tool_calls"][0]["function"] == {"name": "clock", "arguments": '{"zone": "UTC"}'}
    assert (first["tool_call_id"], second["tool_call_id"]) == ("call_1_0", "mine")
    assert answer == {"role": "assistant", "content": "Noon."}
