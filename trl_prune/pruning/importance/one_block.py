"""A causal LM of a checkpoint that is larger than the memory: one decoder block's weights are loaded at a time."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    convert_and_load_state_dict_in_model,
    rename_source_key,
)
from transformers.modeling_utils import LoadStateDictConfig

from trl_prune.checkpoints import check_finite, load_config, model_class, tensor_files
from trl_prune.errors import InputError
from trl_prune.pruning.importance.hooks import decoder_blocks
from trl_prune.pruning.importance.skipped_layers import StandIn


# Tensors by the block that they belong to; None: outside the blocks, but in the decoder.
TensorNames = dict[int | None, list[str]]
# Config keys of models whose blocks use what earlier ones computed, besides their output.
SHARING_KEYS = ("num_kv_shared_layers",)


class OneBlockModel:
    """A causal LM whose decoder blocks have weights one at a time, converted as transformers loads all of them.

    Attributes:
        model: on the meta device but for its decoder's weights outside the blocks, and the loaded block.
        device: where weights are loaded to.
        hidden_size: of the states between blocks.
        num_outputs: for each block that has run, the length of the tuple that it returns, 0 for a tensor.
    """

    def __init__(self, folder: Path, dtype: torch.dtype, device: str) -> None:
        """Load the decoder's weights outside its blocks.

        Args:
            folder: the checkpoint.
            dtype: of the weights in memory.
            device: where weights are loaded to.

        Raises:
            InputError: the checkpoint is quantised, its blocks share weights or states, or a weight is not found.
        """
        config = load_config(folder)
        reason = why_not_one_by_one(config)
        if reason:
            raise InputError(f"the blocks of {folder} cannot run one by one: {reason}")
        with torch.device("meta"):
            self.model: PreTrainedModel = model_class(config).from_config(config, dtype=dtype).eval()
        self.device, self.num_outputs = device, {}
        self.hidden_size: int = config.get_text_config().hidden_size
        self._folder, self._blocks = folder, decoder_blocks(self.model)
        self._loading = LoadStateDictConfig(
            dtype=dtype,
            dtype_plan=self.model._get_dtype_plan(dtype),
            device_map={"": device},
            weight_mapping=get_model_conversion_mapping(self.model),
        )
        self._files = tensor_files(folder)
        self._names = self._names_by_block()
        self._load(None)
        # What is computed from the config alone, such as the frequencies of rotary embeddings.
        self.model._move_missing_keys_from_meta_to_device(set(), {"": device}, None, None)
        self.model._initialize_missing_keys(False)
        self._check_loaded(self.model.get_decoder(), "outside the blocks", set(self._blocks.parameters()))

    def __len__(self) -> int:
        """Return the number of decoder blocks."""
        return len(self._blocks)

    @contextmanager
    def loaded(self, layer: int) -> Iterator[None]:
        """Hold the weights of a decoder block in memory."""
        self._load(layer)
        try:
            self._check_loaded(self._blocks[layer], f"of block {layer}", set())
            check_finite(self._blocks[layer].named_parameters(f"block {layer}"), self._folder)
            yield
        finally:
            self._blocks[layer].to("meta")

    def run(self, layer: int, inputs: dict[str, Tensor], states: Tensor | None) -> tuple[Tensor, Tensor]:
        """Run the loaded block in the decoder's own forward pass, which gives it its mask, positions and the like.

        Args:
            layer: the loaded block.
            inputs: a batch, on the model's device.
            states: the block's input, `(rows, tokens, hidden_size)`; None for the first, which reads the embeddings.

        Returns:
            The block's input and its output.

        Raises:
            InputError: the block hands more than its output to the next one.
        """
        block, originals, read = self._blocks[layer], list(self._blocks[:layer]), []

        def keep_input(_: nn.Module, args: tuple, kwargs: dict) -> None:
            read.append(_input(args, kwargs))

        def stop(_: nn.Module, __: tuple, output: Tensor | tuple) -> None:
            read.append(output)
            raise _BlockDone

        with ExitStack() as stack:
            for index, original in enumerate(originals):
                given = states if index == layer - 1 else None
                self._blocks[index] = _Finished(original, given, self.num_outputs[index])
                stack.callback(self._blocks.__setitem__, index, original)
            stack.callback(block.register_forward_pre_hook(keep_input, with_kwargs=True).remove)
            stack.callback(block.register_forward_hook(stop).remove)
            with suppress(_BlockDone):
                self.model.get_decoder()(**inputs, use_cache=False)
        given, output = read if len(read) == 2 else (None, None)
        return given, self._states_of(output, layer, (*inputs["input_ids"].shape, self.hidden_size))

    def _states_of(self, output: Tensor | tuple | list | None, layer: int, shape: tuple[int, ...]) -> Tensor:
        """Return the states of a block's output, and keep its form for the passes of later blocks."""
        values = list(output) if isinstance(output, tuple | list) else [output]
        others = any(isinstance(other, Tensor) for other in values[1:])
        if others or not isinstance(values[0], Tensor) or values[0].shape != shape:
            raise InputError(
                f"block {layer} of {type(self.model).__name__} does not hand its states alone to the next one, so "
                f"that blocks cannot run one by one: set score.out_of_core to false"
            )
        self.num_outputs[layer] = len(values) if isinstance(output, tuple | list) else 0
        return values[0]

    def _load(self, layer: int | None) -> None:
        with _Tensors(self._folder, self._files, self._names.get(layer, [])) as tensors:
            info, _ = convert_and_load_state_dict_in_model(self.model, tensors, self._loading)
        wrong = [*info.mismatched_keys, *info.conversion_errors, *info.error_msgs]
        if wrong:
            raise InputError(f"{self._folder} holds weights that its config does not fit: {wrong[0]}")

    def _names_by_block(self) -> TensorNames:
        """Return the stored names of the decoder's tensors by block, as transformers' names in memory tell."""
        modules = {id(module): name for name, module in self.model.named_modules()}
        decoder, blocks = modules[id(self.model.get_decoder())], modules[id(self._blocks)]
        renamings = [entry for entry in self._loading.weight_mapping if isinstance(entry, WeightRenaming)]
        converters = [entry for entry in self._loading.weight_mapping if isinstance(entry, WeightConverter)]
        in_memory, names = self.model.state_dict(), {}
        for name in self._files:
            found, _ = rename_source_key(name, renamings, converters, self.model.base_model_prefix, in_memory)
            if found not in in_memory:  # as transformers does it with names that need no renaming
                found, _ = rename_source_key(name, [], [], self.model.base_model_prefix, in_memory)
            match = re.match(rf"{re.escape(blocks)}\.(\d+)\.", found)
            if match or f"{found}.".startswith(f"{decoder}." if decoder else ""):
                names.setdefault(int(match[1]) if match else None, []).append(name)
        return names

    def _check_loaded(self, module: nn.Module, place: str, others: set[nn.Parameter]) -> None:
        missing = [name for name, weight in module.named_parameters() if weight.is_meta and weight not in others]
        if missing:
            raise InputError(
                f"{self._folder} has no weight for {missing[0]} {place} under a name of its own, so that blocks "
                f"cannot be loaded one by one: set score.out_of_core to false"
            )


def why_not_one_by_one(config: PreTrainedConfig) -> str:
    """Return why a checkpoint's blocks cannot be loaded and run one by one, or an empty text."""
    text = config.get_text_config()
    if getattr(text, "quantization_config", None) or getattr(config, "quantization_config", None):
        return "its weights are quantised"
    sharing = shared_between_blocks(config)
    return f"blocks use what earlier ones computed ({sharing[0]})" if sharing else ""


def shared_between_blocks(config: PreTrainedConfig) -> list[str]:
    """Return the config keys by which blocks use what earlier ones computed, besides their output."""
    text = config.get_text_config()
    sharing = [key for key in SHARING_KEYS if getattr(text, key, 0)]
    return sharing + ["indexer_types"] * ("shared" in (getattr(text, "indexer_types", None) or ()))


class _Tensors(dict):
    """Some of a checkpoint's tensors, as slices that are read when they are used."""

    def __init__(self, folder: Path, files: dict[str, Path], names: list[str]) -> None:
        super().__init__()
        self._open = [(path, [name for name in names if files[name] == path]) for path in sorted(set(files.values()))]
        self._folder, self._handles = folder, []

    def __enter__(self) -> "_Tensors":
        for path, names in self._open:
            if names:
                handle = safe_open(path, "pt")
                self._handles.append(handle)
                self.update({name: handle.get_slice(name) for name in names})
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
        for handle in self._handles:
            handle.__exit__(None, None, None)


class _Finished(StandIn):
    """A block that has run: returns its input, or what it is given, in the form in which the block returned."""

    def __init__(self, block: nn.Module, output: Tensor | None, num_outputs: int) -> None:
        super().__init__(block)
        self._output, self._num_outputs = output, num_outputs

    def forward(self, *args: object, **kwargs: object) -> Tensor | tuple:
        """Return the given output, or the input."""
        output = _input(args, kwargs) if self._output is None else self._output
        return (output, *(None,) * (self._num_outputs - 1)) if self._num_outputs else output


class _BlockDone(Exception):
    """Ends a forward pass after the block of interest."""


def _input(args: tuple, kwargs: dict) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]
