"""The engines by name."""

import inspect
from collections.abc import Callable, Mapping
from importlib.util import find_spec

from trl_prune.data.generation.engine import Engine
from trl_prune.data.generation.server_engine import ServerEngine
from trl_prune.data.generation.transformers_engine import TransformersEngine
from trl_prune.data.generation.vllm_engine import VllmEngine
from trl_prune.data.teacher import LazyTeacher
from trl_prune.errors import InputError, closest


# Each builds an engine from the dense model and the user's keyword arguments.
ENGINES: dict[str, Callable[..., Engine]] = {
    "transformers": TransformersEngine,
    "vllm": VllmEngine,
    "server": ServerEngine,
}
# The packages of extras that engines need, and how to install them.
PACKAGES = {"vllm": ("vllm", "pip install vllm"), "server": ("openai", "pip install 'trl-prune[server]'")}


def build_engine(name: str, teacher: LazyTeacher, kwargs: Mapping[str, object]) -> Engine:
    """Return an engine for the dense model; nothing is loaded or connected before the first answer is generated."""
    return ENGINES[name](teacher, **kwargs)


def check_engine(name: str, kwargs: Mapping[str, object], source: str) -> None:
    """Check an engine's name, its arguments, and that its package is installed.

    Args:
        name: the engine's name.
        kwargs: its keyword arguments.
        source: where the arguments come from, for errors.

    Raises:
        InputError: one of them is wrong.
    """
    if name not in ENGINES:
        raise InputError(f"engine {name!r} is unknown; allowed: {', '.join(ENGINES)}")
    parameters = list(inspect.signature(ENGINES[name]).parameters.values())[1:]
    _check_names(kwargs, parameters, f"{source} of the engine {name!r}")
    package, command = PACKAGES.get(name, (None, None))
    if package and find_spec(package) is None:
        raise InputError(f"the engine {name!r} needs the package {package}, which is not installed: {command}")


def _check_names(kwargs: Mapping[str, object], parameters: list[inspect.Parameter], source: str) -> None:
    named = [parameter for parameter in parameters if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    allowed = [parameter.name for parameter in named]
    for name in kwargs:
        if name not in allowed and len(named) == len(parameters):
            likely = closest(name, allowed)
            hint = f"; did you mean {likely!r}?" if likely else ""
            raise InputError(f"{source}: {name!r} is unknown; allowed: {', '.join(allowed) or 'none'}{hint}")
    missing = [item.name for item in named if item.default is inspect.Parameter.empty and item.name not in kwargs]
    if missing:
        raise InputError(f"{source}: {', '.join(missing)} must be given")
