"""How surely wrong steps of arithmetic are found in solutions, and how seldom right ones are taken for wrong.

    python benchmarks/equations.py DATA

DATA has JSON Lines of {"question", "answer"}, such as GSM8K's training set, whose solutions are right but for a few.
In a copy of each, one digit of one equation's result is changed, and the final answer stays. The check was developed
on the same data.
"""

import json
import random
import re
import sys
import time
from pathlib import Path

from trl_prune.data.rewriting.arithmetic import wrong_equation
from trl_prune.data.rewriting.extractors.registry import EXTRACTORS


RESULT = re.compile(r"(?<== )\$?\d[\d,.]*\d|(?<==)\$?\d[\d,.]*\d|(?<== )\d|(?<==)\d")


def corrupted(solution: str, rng: random.Random) -> str | None:
    """Return a solution with one digit of one equation's result changed; None if it has no equation."""
    steps, hashes, final = solution.rpartition("####")
    results = list(RESULT.finditer(steps))
    if not results:
        return None
    result = rng.choice(results)
    position = rng.choice([index for index in range(*result.span()) if steps[index].isdigit()])
    digit = rng.choice([digit for digit in "123456789" if digit != steps[position]])
    return steps[:position] + digit + steps[position + 1 :] + hashes + final


def main(path: str) -> None:
    """Print the shares."""
    solutions = [json.loads(line)["answer"] for line in Path(path).read_bytes().splitlines()]
    rng, start = random.Random(0), time.process_time()
    flagged = sum(wrong_equation(solution) is not None for solution in solutions)
    seconds = time.process_time() - start
    changed = [text for text in (corrupted(solution, rng) for solution in solutions) if text is not None]
    found = sum(wrong_equation(text) is not None for text in changed)
    math = EXTRACTORS["math"]
    same = sum(math.agree(f"The answer is {solution.split('####')[-1].strip()}.", solution) for solution in solutions)
    print("| solutions | rows | a wrong step found |\n|---|---|---|")
    print(f"| as they are | {len(solutions)} | {flagged / len(solutions):.2%} |")
    print(f"| with one result changed | {len(changed)} | {found / len(changed):.1%} |")
    print(f"\nfinal answers that agree with their own number: {same / len(solutions):.2%}")
    print(f"{1000 * seconds / len(solutions):.2f} CPU seconds a thousand rows")


if __name__ == "__main__":
    main(sys.argv[1])
