"""A real HTTP server with OpenAI's API around a tiny model, and faults to inject."""

import json
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.data.generation.prompts import generated_alone


class Faults:
    """What goes wrong: one fault for each of the next requests for an answer, then none.

    Attributes:
        next: names of faults: an HTTP status, `hang`, `garbage`, `page`, `drop`, or `ok`.
        always: the fault of every request, or None.
        dies_after: the number of answers after which every connection is dropped, or None.
    """

    def __init__(self):
        self.next, self.always, self.dies_after = [], None, None


class ServedModel:
    """The server's state: what it serves, what it was asked, and how often at once."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer
        self.models, self.faults, self.api_key = ["tiny"], Faults(), None
        self.requests, self.answers, self.most_at_once, self._at_once = [], 0, 0, 0
        self.lock = threading.Lock()

    def fault(self):
        """Return the fault of this request, or None."""
        with self.lock:
            if self.faults.dies_after is not None and self.answers >= self.faults.dies_after:
                return "drop"
            return self.faults.always or (self.faults.next.pop(0) if self.faults.next else None)

    def answer(self, path, body):
        """Return the reply to a request for an answer."""
        with self.lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(0.02)  # so that requests overlap
        with self.lock:
            self.requests.append(body)
            ids = self._chat_ids(body) if path.endswith("/chat/completions") else self._ids(body["prompt"])
            answer = generated_alone(self.model, self.tokenizer, ids, body["max_tokens"])
            self.answers += 1
            self._at_once -= 1
        choice = {"index": 0, "finish_reason": "stop" if answer.finished else "length"}
        content = {"message": {"role": "assistant", "content": answer.text or None}}
        return {"choices": [choice | (content if "messages" in body else {"text": answer.text})], "model": "tiny"}

    def _ids(self, prompt):
        return self.tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else prompt

    def _chat_ids(self, body):
        continued = body.get("continue_final_message", False)
        rendered = self.tokenizer.apply_chat_template(
            body["messages"],
            tools=body.get("tools"),
            tokenize=False,
            add_generation_prompt=body.get("add_generation_prompt", True),
            continue_final_message=continued,
            **body.get("chat_template_kwargs", {}),
        )
        return self.tokenizer(rendered, add_special_tokens=False)["input_ids"]


@contextmanager
def serving(model, tokenizer):
    """Serve a model on a free port; yield the server's state, which has its `url`."""
    served = ServedModel(model, tokenizer)

    class Handler(_Handler):
        state = served

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield served
    server.shutdown()
    server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        if not self._is_allowed():
            return
        models = self.state.models
        self._send(*((404, {}) if models is None else (200, {"data": [{"id": name} for name in models]})))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._is_allowed():
            return
        fault = self.state.fault()
        if fault in (None, "ok"):
            self._send(200, self.state.answer(self.path, body))
        elif fault == "drop":
            self.close_connection = True
        elif fault == "hang":
            time.sleep(1.6)
            self.close_connection = True
        elif fault in ("garbage", "page"):
            self._send(200, b'{"choices": [' if fault == "garbage" else b"<html>restarting</html>")
        else:
            self._send(int(fault), {"error": {"message": f"fault {fault}"}}, {"Retry-After": "0.05"})

    def _is_allowed(self):
        key = self.state.api_key
        if key is None or self.headers["Authorization"] == f"Bearer {key}":
            return True
        self._send(401, {"error": {"message": f"wrong key {self.headers['Authorization']}"}})
        return False

    def _send(self, status, content, headers=None):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if data.startswith(b"<") else "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        with suppress(BrokenPipeError, ConnectionResetError):  # the client gave up
            self.end_headers()
            self.wfile.write(data)
