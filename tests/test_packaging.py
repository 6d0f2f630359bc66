"""What a user gets: the wheel's files, the public names, the README's promises."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import trl_prune
from trl_prune.recipe import parse_recipe
from trl_prune.recipe.auto import AUTO
from trl_prune.trainers.arms.checks import check_arm


ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", trl_prune.__all__)
def test_public_names_are_there_and_documented(name):
    assert getattr(trl_prune, name).__doc__


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        trl_prune.nonsense  # noqa: B018


def test_importing_the_package_is_light():
    script = "import sys, trl_prune; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.slow  # builds a wheel, which fetches setuptools
def test_the_wheel_contains_all_data(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True)
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    packages = ("trl_prune/", "mergekit_recipes/", "lm_eval_tasks/")
    missing = [name for name in tracked if name.startswith(packages) and name not in names]
    assert missing == []


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_example_recipes_are_recipes(path):
    recipe = parse_recipe(yaml.safe_load(path.read_text()), str(path))
    for arm in recipe.recover.values():
        rate = (
            {"learning_rate": 1e-4} if arm.args.get("learning_rate") == AUTO else {}
        )  # a run goes by the model's size
        check_arm({"use_cpu": True, "bf16": False} | arm.args | rate, arm.peft, arm.method)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_example_scripts_use_public_names(path):
    imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    ours = {(node.module, name.name) for node in imports if node.module.startswith("trl_prune") for name in node.names}
    assert ours
    assert ours <= {("trl_prune", name) for name in trl_prune.__all__} | {("trl_prune.smollm2", "smollm2")}


def test_the_readme_names_every_verb():
    text = (ROOT / "README.md").read_text()
    from trl_prune.cli import STAGE_VERBS

    for verb in ("quickstart", "run", "tasks", *(verb.replace("_", "-") for verb in STAGE_VERBS)):
        assert f"trl-prune {verb}" in text or f"`{verb}`" in text, verb
