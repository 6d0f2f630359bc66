"""Generate answers slowly, as `python -m tests.data.generation.killed_run FOLDER`; each batch prints its length."""

import sys
import time
from pathlib import Path

from tests.conftest import tiny_tokenizer
from tests.data.generation.prompts import likely_to_end, prompts_of, tiny_teacher
from trl_prune.data.generation import transformers_engine
from trl_prune.data.generation.missing import generate_missing
from trl_prune.data.generation.sampling import Sampling
from trl_prune.data.generation.store import AnswerStore
from trl_prune.data.sharing import SINGLE_PROCESS


PROMPTS = prompts_of(range(1, 25))
SAMPLING = Sampling(max_new_tokens=12, batch_size=3, temperature=0.8)
SECONDS_A_BATCH = 0.2


def main(folder):
    """Generate, announcing each batch by its longest prompt."""
    decode = transformers_engine.decode

    def announced_decode(model, tokenizer, prompts, *args):
        print(len(prompts[0]), flush=True)  # noqa: T201
        time.sleep(SECONDS_A_BATCH)
        return decode(model, tokenizer, prompts, *args)

    transformers_engine.decode = announced_decode
    engine = transformers_engine.TransformersEngine(tiny_teacher(tiny_tokenizer(), likely_to_end()))
    generate_missing(PROMPTS, engine, SAMPLING, AnswerStore(folder), SINGLE_PROCESS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
