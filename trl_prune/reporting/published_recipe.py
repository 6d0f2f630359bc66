"""A recipe as text that can be published: without the places of folders and without credentials."""

import re
from pathlib import Path

import yaml

from trl_prune.recipe import Recipe


# Keys of credentials, and of the server that generated answers, which is nobody else's business.
UNPUBLISHED = ("push_to_hub_token", "token", "url")
UNPUBLISHED_ENDS = (
    "api_key",
    "access_token",
    "auth_token",
    "authorization",
    "hf_token",
    "hub_token",
    "password",
    "secret",
)
# The tokens of well-known services, wherever they stand; what follows `Bearer`; a name and password in an address.
CREDENTIAL = re.compile(
    r"\b(?:hf|sk|ghp|gho|ghs|github_pat|glpat|xox[abp])[_-][A-Za-z0-9_-]{16,}|\bAKIA[0-9A-Z]{16}\b"
    r"|(?<=Bearer )\S+|(?<=://)[^\s/@]+:[^\s/@]+@"
)
# A path from the root or the home folder, with the last part as its only group; no address of the web.
ABSOLUTE_PATH = re.compile(r"(?<![\w./:~-])~?/(?:[\w.+@-]+/)*([\w.+@-]+)/?")
LINE_WIDTH = 110


def published_recipe(recipe: Recipe) -> str:
    """Return what a recipe sets, as YAML: folders by their names alone, credentials and servers left out."""
    values = _published(recipe.model_dump(mode="json", exclude_unset=True))
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=LINE_WIDTH)


def published_text(text: str) -> str:
    """Return a text with absolute paths shortened to their last part, and without credentials."""
    return CREDENTIAL.sub("...", ABSOLUTE_PATH.sub(r"\1", text))


def is_hub_id(path: str) -> bool:
    """Return whether the path of a model or dataset is a hub id rather than a folder or file."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path) is not None and not Path(path).exists()


def _published(value: object) -> object:
    if isinstance(value, dict):
        return {key: _published(inner) for key, inner in value.items() if not _is_credential(key, inner)}
    if isinstance(value, list):
        return [_published(inner) for inner in value]
    return published_text(value) if isinstance(value, str) else value


def _is_credential(key: str, value: object) -> bool:
    name = key.lower().replace("-", "_")
    return isinstance(value, str) and (name in UNPUBLISHED or name.endswith(UNPUBLISHED_ENDS))
