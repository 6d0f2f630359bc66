"""Small lm-eval tasks of each type, and models that count what they are asked."""

import json
from pathlib import Path

import pytest

from trl_prune.evaluation.harness import Answers, EvaluatedModel


DATA = "dataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\ntest_split: test\n"
CHOICE = (
    "task: tiny_choice\n"
    + DATA
    + """\
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
)
WITH_METADATA = (
    CHOICE.replace("tiny_choice", "tiny_with_metadata")
    + "metadata: {{metric: acc, chance: 0.125, capability: x, version: 2}}\n"
)
WITH_SHOTS = CHOICE.replace("tiny_choice", "tiny_shots") + "num_fewshot: 2\nfewshot_split: test\n"
GENERATED = (
    "task: tiny_generated\n"
    + DATA
    + """\
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{question}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 4}}
metric_list: [{{metric: exact_match}}]
"""
)
SAMPLED = (
    GENERATED.replace("tiny_generated", "tiny_sampled").replace("until:", "do_sample: true, temperature: 1.0, until:")
    + "repeats: 3\n"
)
ROLLING = (
    "task: tiny_rolling\n"
    + DATA
    + """\
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}}, and that is that."
metric_list: [{{metric: word_perplexity}}, {{metric: bits_per_byte}}]
"""
)
LIKELIHOOD = (
    "task: tiny_likelihood\n"
    + DATA
    + """\
output_type: loglikelihood
doc_to_text: "{{{{question}}}}"
doc_to_target: " odd"
metric_list: [{{metric: acc}}, {{metric: perplexity}}]
"""
)
GROUP = "group: tiny_group\ntask: [tiny_choice, tiny_with_metadata]\n"
OUTER = "group: tiny_outer\ntask: [tiny_group, tiny_generated]\n"
UNSAFE = GENERATED.replace("tiny_generated", "tiny_unsafe") + "unsafe_code: true\n"
# One task of each type, which the tests compare with lm-eval's own scores.
TYPES = ["tiny_choice", "tiny_shots", "tiny_likelihood", "tiny_rolling", "tiny_generated"]


@pytest.fixture(scope="session")
def tasks_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


def write_tasks(folder: Path) -> str:
    """Write the tasks and their rows, and return the folder."""
    data = folder / "rows.json"
    choices = ["odd", "even", "big"]
    rows = [json.dumps({"question": f"Number {n} is", "choices": choices, "answer": n % 2}) for n in range(20)]
    data.write_text("\n".join(rows))
    texts = [CHOICE, WITH_METADATA, WITH_SHOTS, GENERATED, SAMPLED, ROLLING, LIKELIHOOD, GROUP, OUTER, UNSAFE]
    for number, text in enumerate(texts):
        (folder / f"{number}.yaml").write_text(text.format(data=data))
    return str(folder)


class Asked:
    """Requests that reached a model, by lm-eval's method."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        from trl_prune.evaluation.harness.answering import ForwardModel

        self.requests: list[tuple] = []
        ask = ForwardModel.ask

        def count(model: ForwardModel, kind: str, requests: list, store: object, refuse: object) -> None:
            self.requests += [(kind, *request.args) for request in requests]
            ask(model, kind, requests, store, refuse)

        monkeypatch.setattr(ForwardModel, "ask", count)

    def take(self) -> list[tuple]:
        """Return the requests since the last call."""
        taken, self.requests = self.requests, []
        return taken


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


def model_of(model: object, tokenizer: object, path: Path | None = None, name: str = "tiny") -> EvaluatedModel:
    return EvaluatedModel(name, lambda: model, tokenizer, Answers(path))
