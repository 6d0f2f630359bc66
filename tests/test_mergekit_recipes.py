"""The shipped recipes, run by the real mergekit and compared with arithmetic in float64."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.conftest import save_tiny, tiny_model
from trl_prune.checkpoints import Provenance, read_provenance, write_provenance
from trl_prune.errors import InputError
from trl_prune.merging import merge as merging
from trl_prune.merging.merge import check_models, merge_models
from trl_prune.merging.mergekit_run import check_mergeable
from trl_prune.merging.plan import MergePlan
from trl_prune.merging.recipes import MergeRecipe, shipped_recipes
from trl_prune.merging.search import WeightSearch


FAMILIES = ("llama", "qwen2", "gemma3_text", "gpt2")


def unit(tensor):
    return tensor / tensor.norm() if tensor.norm() > 0 else tensor


def slerp(one, other, t, lerp_above=0.9995):
    """The formula of arXiv 2410.09982's merge: the angle of the directions, applied to the tensors as they are."""
    cosine = (unit(one) * unit(other)).sum().item()
    if abs(cosine) > lerp_above:
        return (1 - t) * one + t * other
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * one + math.sin(t * angle) * other) / math.sin(angle)


def multislerp(tensors, weights):
    """Mean of the directions, a step in the tangent space there, and back; times the mean norm."""
    norms, units = [tensor.norm() for tensor in tensors], [unit(tensor) for tensor in tensors]
    centre = unit(sum(w * u for w, u in zip(weights, units, strict=True)))
    tangent = sum(w * (u - (u * centre).sum() * centre) for w, u in zip(weights, units, strict=True))
    size = tangent.norm()
    point = centre if size < 1e-7 else centre * size.cos() + tangent / size * size.sin()
    return point * sum(w * norm for w, norm in zip(weights, norms, strict=True))


def model_stock(tensors, base):
    one, other = (tensor - base for tensor in tensors)
    cosine = (unit(one) * unit(other)).sum()
    share = 2 * cosine / (1 + cosine)
    return share * sum(tensors) / 2 + (1 - share) * base


def ties(tensors, base, density):
    """Trim, elect signs, average those that agree (arXiv 2306.01708, algorithm 1)."""
    differences = torch.stack([tensor - base for tensor in tensors])
    for difference in differences.flatten(1):
        largest = difference.abs().topk(max(1, int(density * len(difference)))).indices
        dropped = torch.ones_like(difference).index_fill_(0, largest, 0).bool()
        difference[dropped] = 0
    elected = torch.where(differences.sum(0) >= 0, 1.0, -1.0)
    agrees = (differences.sign() == elected).double()
    return base + (differences * agrees).sum(0) / agrees.sum(0).clamp(min=1)


def gradient(name, values, num_layers=4):
    """The share of a block: values spread evenly from the first block to the last."""
    block = next(int(part) for part in name.split(".") if part.isdigit())
    return values[0] + (values[1] - values[0]) * block / (num_layers - 1)


def gradient_share(name):
    if "attn" in name:
        return gradient(name, (0, 1))
    return gradient(name, (1, 0)) if "mlp" in name else 0.5


# Of each recipe its parameters, the number of models, and the merged tensor from its name, the models' and the base's.
TRUTHS = {
    "slerp": ({"t": 0.3}, 2, lambda name, tensors, base: slerp(*tensors, 0.3)),
    "gradient_slerp": ({}, 2, lambda name, tensors, base: slerp(*tensors, gradient_share(name))),
    "nuslerp": ({"weight": [1, 3]}, 2, lambda name, tensors, base: slerp(*tensors, 0.75, lerp_above=1 - 1e-12)),
    "multislerp": ({"weight": [1, 2, 1]}, 3, lambda name, tensors, base: multislerp(tensors, [0.25, 0.5, 0.25])),
    "linear": ({"weight": [1, 3]}, 2, lambda name, tensors, base: 0.25 * tensors[0] + 0.75 * tensors[1]),
    "ties": ({"density": 0.2}, 2, lambda name, tensors, base: ties(tensors, base, 0.2)),
    "dare_ties": ({"density": 1.0}, 3, lambda name, tensors, base: ties(tensors, base, 1.0)),
    "task_arithmetic": ({}, 2, lambda name, tensors, base: base + 0.7 * sum(tensor - base for tensor in tensors)),
    "model_stock": ({}, 2, lambda name, tensors, base: model_stock(tensors, base)),
    "karcher": (
        {},
        2,
        lambda name, tensors, base: (
            slerp(unit(tensors[0]), unit(tensors[1]), 0.5, 1 - 1e-12) * sum(tensor.norm() for tensor in tensors) / 2
        ),
    ),
}


def weights(folder):
    return {
        name: tensor.double()
        for path in Path(folder).glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


@pytest.fixture(scope="module")
def siblings(tmp_path_factory):
    """Return three models of a family and the one that they came from, each a random step away from it."""
    made = {}

    def of(family):
        if family not in made:
            base = save_tiny(tmp_path_factory.mktemp(family) / "base", family)
            made[family] = ([sibling(base, seed) for seed in (1, 2, 3)], base)
        return made[family]

    return of


def sibling(base, seed):
    folder = base.parent / f"sibling-{seed}"
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.data += 0.05 * torch.randn(weight.shape, generator=generator)
    model.save_pretrained(folder)
    for path in base.iterdir():
        if "token" in path.name or path.suffix == ".jinja":
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


def plan_of(recipe, models, base, **parameters):
    return MergePlan.of(recipe, models, base if MergeRecipe.load(recipe).takes_base else None, parameters)


def pairs():
    """Every recipe on every family; by default each recipe on one family, in turn."""
    for row, recipe in enumerate(sorted(TRUTHS)):
        for column, family in enumerate(FAMILIES):
            slow = () if column == row % len(FAMILIES) else pytest.mark.slow
            yield pytest.param(recipe, family, marks=slow)


def test_every_shipped_recipe_has_a_truth():
    assert shipped_recipes() == sorted(TRUTHS)


@pytest.mark.parametrize(("recipe", "family"), list(pairs()))
def test_a_recipe_is_its_formula(recipe, family, siblings, tmp_path):
    models, base = siblings(family)
    parameters, count, truth = TRUTHS[recipe]
    merge_models(plan_of(recipe, models[:count], base, **parameters), tmp_path / "merged", prove_ends=False)
    sources = [weights(folder) for folder in [*models[:count], base]]
    merged = weights(tmp_path / "merged")
    assert merged.keys() == sources[0].keys()
    for name, tensor in merged.items():
        expected = truth(name, [source[name] for source in sources[:-1]], sources[-1][name])
        torch.testing.assert_close(
            tensor, expected, atol=2e-6, rtol=1e-4, msg=lambda text, name=name: f"{name} {text}"
        )


def test_the_ends_of_slerp_are_the_models_and_everything_beside_the_weights_is_the_first_ones(siblings, tmp_path):
    models, _ = siblings("gemma3_text")
    record = merge_models(plan_of("slerp", models[:2], None, t=0.5), tmp_path / "merged")
    assert record["proof"]["equal_logits"] == ["t=0", "t=1"]
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "merged" / name).read_bytes() == (models[0] / name).read_bytes()
    assert json.loads((tmp_path / "merged" / "merge.json").read_text()) == record
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged"]


def test_a_printed_merge_runs_with_mergekits_own_command(siblings, tmp_path):
    models, base = siblings("llama")
    plan = plan_of("task_arithmetic", models, base)
    merge_models(plan, tmp_path / "merged")
    (tmp_path / "merge.yaml").write_text(plan.to_yaml())
    config = MergeConfiguration.model_validate(yaml.safe_load((tmp_path / "merge.yaml").read_text()))
    run_merge(config, str(tmp_path / "theirs"), MergeOptions(quiet=True, write_model_card=False))
    ours, theirs = weights(tmp_path / "merged"), weights(tmp_path / "theirs")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_more_than_two_models_are_merged_by_slerp_one_after_the_other(siblings, tmp_path):
    models, _ = siblings("llama")
    plan = plan_of("slerp", models, None)
    record = merge_models(plan, tmp_path / "merged")
    one, other, third = (weights(folder) for folder in models)
    merged = weights(tmp_path / "merged")
    for name in one:
        expected = slerp(slerp(one[name], other[name], 1 / 2), third[name], 1 / 3)
        torch.testing.assert_close(merged[name], expected, atol=2e-6, rtol=1e-4)
    assert len(record["proof"]["tensors"]) == 2
    documents = list(yaml.safe_load_all(plan.to_yaml()))
    assert [document.get("name") for document in documents] == ["step-1", None]
    assert documents[1]["models"][0]["model"] == "step-1"


def test_linear_interpolation_of_nearly_parallel_tensors_is_reported(siblings, tmp_path):
    models, _ = siblings("llama")
    near = tmp_path / "near"
    save_near(models[0], near, 1e-3)
    record = merge_models(plan_of("slerp", [models[0], near], None), tmp_path / "merged", prove_ends=False)
    assert record["lerp"]["count"] == record["lerp"]["of"] == len(weights(near))
    record = merge_models(plan_of("slerp", models[:2], None), tmp_path / "merged", prove_ends=False)
    cosines = {
        name: (unit(one) * unit(weights(models[1])[name])).sum().item() for name, one in weights(models[0]).items()
    }
    assert set(record["lerp"]["names"]) == {name for name, cosine in cosines.items() if abs(cosine) > 0.9995}


def save_near(model, target, size):
    target.mkdir()
    for path in model.iterdir():
        if path.suffix != ".safetensors":
            (target / path.name).write_bytes(path.read_bytes())
    tensors = {name: tensor * (1 + size) for name, tensor in load_file(model / "model.safetensors").items()}
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


def losses(ideal):
    """A loss that is least at a share of the second model, and counts its calls."""
    calls = []

    def loss(folder):
        calls.append(folder)
        value = weights(folder)["model.layers.0.mlp.up_proj.weight"]
        return (value - ideal).square().mean().item()

    return loss, calls


@pytest.mark.slow
def test_a_search_finds_the_best_share_and_resumes(siblings, tmp_path):
    models, _ = siblings("llama")
    one, other = (weights(model)["model.layers.0.mlp.up_proj.weight"] for model in models[:2])
    loss, calls = losses(slerp(one, other, 0.6))
    measured = {}
    search = WeightSearch(loss, grid=3, refine=6, measured=measured)
    record = merge_models(plan_of("slerp", models[:2], None), tmp_path / "merged", search, prove_ends=False)
    assert record["parameters"]["t"] == pytest.approx(0.6, abs=0.03)
    assert record["search"]["kept"] is None
    assert [entry["model"] for entry in record["search"]["curve"][:2]] == [str(model) for model in models[:2]]
    count = len(calls)
    again = merge_models(plan_of("slerp", models[:2], None), tmp_path / "again", search, prove_ends=False)
    assert len(calls) == count
    assert again["parameters"] == record["parameters"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["slerp", "linear", "task_arithmetic"])
def test_a_model_that_no_merge_beats_is_kept(recipe, siblings, tmp_path):
    models, base = siblings("llama")
    loss, _ = losses(weights(models[1])["model.layers.0.mlp.up_proj.weight"])
    plan = plan_of(recipe, models[:2], base)
    record = merge_models(plan, tmp_path / "merged", WeightSearch(loss, grid=3, refine=1))
    assert record["search"]["kept"] == str(models[1])
    ours, theirs = weights(tmp_path / "merged"), weights(models[1])
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_weights_of_many_models_are_searched_greedily(siblings, tmp_path):
    models, _ = siblings("llama")
    name = "model.layers.0.mlp.up_proj.weight"
    loss, _ = losses((weights(models[0])[name] + weights(models[2])[name]) / 2)
    record = merge_models(plan_of("linear", models, None), tmp_path / "merged", WeightSearch(loss))
    assert record["parameters"]["weight"] == [1.0, 0.0, 1.0]


@pytest.mark.slow
def test_a_model_that_gives_no_numbers_is_named(siblings, tmp_path):
    models, _ = siblings("llama")
    search = WeightSearch(lambda folder: float("nan"))
    with pytest.raises(InputError, match=r"sibling-1 is damaged: its loss on the dev texts is nan"):
        merge_models(plan_of("linear", models, None), tmp_path / "merged", search)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_adapters_are_merged_into_full_weights_first(siblings, tmp_path):
    _, base = siblings("llama")
    adapters, full = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
        adapters.append(tmp_path / f"adapter-{seed}")
        adapted.save_pretrained(adapters[-1])
        full.append({name: weight.double() for name, weight in adapted.merge_and_unload().state_dict().items()})
    plan = plan_of("linear", adapters, base)
    record = merge_models(plan, tmp_path / "merged")
    merged = weights(tmp_path / "merged")
    for name, weight in merged.items():
        torch.testing.assert_close(weight, (full[0][name] + full[1][name]) / 2)
    assert record["models"] == [str(adapter) for adapter in adapters]
    assert "--lora-merge-cache" in plan.to_yaml()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter-1", "adapter-2", "merged"]


@pytest.mark.slow
def test_bfloat16_models_with_tied_embeddings_stay_so(tmp_path):
    folders = []
    for seed in (0, 1):
        folder = save_tiny(tmp_path / str(seed), seed=seed)
        tiny_model("llama", seed, tie_word_embeddings=True).to(torch.bfloat16).save_pretrained(folder)
        folders.append(folder)
    record = merge_models(plan_of("slerp", folders, None, t=0.3), tmp_path / "merged")
    assert record["proof"]["equal_logits"] == ["t=0", "t=1"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert model.dtype == torch.bfloat16
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert {tensor.dtype for tensor in load_file(tmp_path / "merged" / "model.safetensors").values()} == {
        torch.bfloat16
    }


@pytest.mark.slow
def test_folders_with_at_signs_and_plus_signs_are_folders(tmp_path):
    folders = [save_tiny(tmp_path / name, seed=seed) for seed, name in enumerate(("a@1", "b+c"))]
    merge_models(plan_of("linear", folders, None), tmp_path / "merged")
    assert (tmp_path / "merged" / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_draw_is_that_of_its_seed(siblings, tmp_path):
    models, base = siblings("llama")
    plan = plan_of("dare_ties", models[:2], base)
    for name, other in (("one", plan), ("same", plan), ("another", replace(plan, seed=1))):
        merge_models(other, tmp_path / name)
    one, same, another = (weights(tmp_path / name)["lm_head.weight"] for name in ("one", "same", "another"))
    assert torch.equal(one, same)
    assert not torch.equal(one, another)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"), "missing_keys"),
        (lambda tensors: tensors["model.norm.weight"].fill_(float("nan")), "not finite"),
        (lambda tensors: [tensor.mul_(1.01) for tensor in tensors.values()], "is not what linear makes of"),
    ],
    ids=["a tensor is missing", "a tensor is no number", "wrong arithmetic"],
)
def test_a_result_that_is_not_whole_does_not_appear(damage, message, siblings, tmp_path, monkeypatch):
    models, _ = siblings("llama")

    def damaged(config, target, seed):
        from trl_prune.merging.mergekit_run import run_mergekit

        run_mergekit(config, target, seed)
        tensors = load_file(target / "model.safetensors")
        damage(tensors)
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(merging, "run_mergekit", damaged)
    with pytest.raises(InputError, match=message):
        merge_models(plan_of("linear", models, None), tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_provenance_of_the_models_is_carried_on(siblings, tmp_path):
    folders = [save_tiny(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    for folder in folders:
        write_provenance(Provenance({"path": "dense"}, "pruned", {"num_hidden_layers": [0, 1, 2, 5]}), folder)
    merge_models(plan_of("slerp", folders, None), tmp_path / "merged")
    provenance = read_provenance(tmp_path / "merged")
    assert provenance.keep == {"num_hidden_layers": [0, 1, 2, 5]}
    assert provenance.parent == str(folders[0])
    assert provenance.edits[0]["merge"]["parameters"] == {"t": 0.5}


@pytest.mark.parametrize(
    ("family", "changes", "tensor"),
    [
        ("gpt_neox", {}, "gpt_neox.layers.0.attention.bias"),
        ("qwen3_moe", {"decoder_sparse_step": 2}, "model.layers.0.mlp.experts.down_proj"),
    ],
)
def test_tensors_that_mergekit_misses_are_one_sentence(family, changes, tensor, tmp_path):
    folders = [save_tiny(tmp_path / str(seed), family, seed=seed, **changes) for seed in (0, 1)]
    with pytest.raises(InputError) as error:
        check_models(plan_of("linear", folders, None))
    assert str(error.value) == (
        f"mergekit reads the tensor {tensor} from models of type {family}, and {folders[0]} has none: such a model "
        "cannot be merged"
    )


@pytest.mark.parametrize("family", [*FAMILIES, "mixtral", "qwen3_moe", "phi3"])
def test_models_that_mergekit_merges_are_not_refused(family, tmp_path):
    changes = {"decoder_sparse_step": 1} if family == "qwen3_moe" else {}
    check_mergeable(save_tiny(tmp_path / "model", family, **changes))


@pytest.mark.slow
def test_a_merge_that_mergekit_leaves_incomplete_is_one_sentence(tmp_path, caplog):
    folders = [save_tiny(tmp_path / str(seed), "qwen2_moe", seed=seed, mlp_only_layers=[1]) for seed in (0, 1)]
    message = "mergekit did not merge models of type qwen2_moe rightly: .* does not load completely: missing_keys"
    with pytest.raises(InputError, match=message):
        merge_models(plan_of("linear", folders, None), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    assert "Inferred" not in caplog.text  # what mergekit warns of by the root logger


@pytest.mark.slow
def test_the_command_of_mergekit_runs_what_is_printed(siblings, tmp_path):
    models, _ = siblings("llama")
    for name, count, command in (("one", 2, "run_yaml"), ("chain", 3, "multimerge")):
        plan = plan_of("slerp", models[:count], None)
        merge_models(plan, tmp_path / name, prove_ends=False)
        path = tmp_path / f"{name}.yaml"
        path.write_text(plan.to_yaml())
        words = path.read_text().splitlines()[0].removeprefix("# ").split()
        places = {"FILE": str(path), "OUT": str(tmp_path / "theirs" / name), "BETWEEN": str(tmp_path / "between")}
        argv = [sys.executable, "-m", f"mergekit.scripts.{command}", *(places.get(word, word) for word in words[1:])]
        subprocess.run(argv, check=True, capture_output=True)
        ours, theirs = weights(tmp_path / name), weights(tmp_path / "theirs" / name)
        assert all(torch.allclose(ours[tensor], theirs[tensor], atol=1e-7) for tensor in theirs)
