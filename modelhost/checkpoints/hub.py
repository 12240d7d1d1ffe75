"""Causal chat models that transformers knows natively and that have a chat template."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging

from modelhost import attention
from modelhost.checkpoints import quantization, servable
from modelhost.checkpoints.adapter import Adapter
from modelhost.checkpoints.base import (
    Description,
    Loaded,
    Placement,
)
from modelhost.checkpoints.config import check_context, context_length
from modelhost.checkpoints.files import fingerprint, first_of, present
from modelhost.checkpoints.quantization import Quantizer
from modelhost.checkpoints.shards import count_parameters, stored_small, weight_files
from modelhost.cpu import waiting
from modelhost.errors import BadTurns, LoadFailed, first_line
from modelhost.progress import Progress
from modelhost.template import TemplateFormat

MOST_MISSING = 2  # times what is stored; below it the weights that lack are named
MOST_PACKED = 16  # of two bits each fit into one stored number


class HubCheckpoint:
    """A folder in the layout that `save_pretrained` writes. No code of the folder is executed."""

    adapter: Adapter | None = None

    def __init__(
        self, folder: Path, config: dict[str, Any], *, name: str, revision: str | None
    ) -> None:
        self.folder = folder
        self.config = config
        self.name = name
        self.revision = revision or fingerprint(files_read(folder))

    def describe(self, where: Placement) -> Description:
        """Architecture from config.json, parameters from the safetensors headers."""
        config = load_config(self.folder, self.config)
        parameters = sum(count_parameters(file) for file in weight_files(self.folder))
        return Description(
            name=self.name,
            revision=self.revision,
            kind="hub",
            architecture=(self.config.get("architectures") or ["unknown"])[0],
            parameters=parameters,
            dtype=where.dtype_name,
            device=str(where.device),
            context_length=context_length(config),
            memory_bytes=self._memory(config, parameters, where),
            files=[str(file) for file in files_read(self.folder)],
        )

    def chat_format(self) -> TemplateFormat:
        return load_format(self.folder)

    def load(self, where: Placement, progress: Progress) -> Loaded:
        """Read the weights with transformers' own class for the architecture."""
        config = load_config(self.folder, self.config)
        self._check_size(config, sum(map(count_parameters, weight_files(self.folder))))
        return load_folder(self.folder, where, progress)

    def _check_size(self, config: Any, stored: int) -> None:
        """Refuse a config of a far larger model than the weights are. Raises LoadFailed.

        transformers makes room for what is missing, and fills it, before it says so: another
        model's config could take more memory than there is, and the process with it.
        """
        outlined = sum(parameter.numel() for parameter in self._outline(config).parameters())
        packed = getattr(config, "quantization_config", None) is not None
        if outlined > (MOST_PACKED if packed else MOST_MISSING) * stored:
            raise LoadFailed(
                f"{self.folder / 'config.json'} describes {outlined} parameters; the weights "
                f"beside it are {stored}. Take both from the same release."
            )

    def _memory(self, config: Any, parameters: int, where: Placement) -> int:
        if where.quantize is None and not where.halves:
            return parameters * where.dtype.itemsize
        outline = self._outline(config)
        if where.halves:
            small = stored_small(self.folder)
            names = [f"{path}.weight" for path, _ in outline.named_modules()]
            return waiting.memory_bytes(outline, dict.fromkeys(names, small or where.dtype))
        return quantization.memory_bytes(outline, where.dtype, where.quantize)

    def _outline(self, config: Any) -> Any:
        """The network without numbers. Raises LoadFailed."""
        config._attn_implementation = servable.attention(config)  # as it is loaded
        try:
            with torch.device("meta"):
                return AutoModelForCausalLM.from_config(config)
        except Exception as error:  # as below: anything
            raise LoadFailed(
                f"{self.folder / 'config.json'} is not usable: {first_line(error)}."
            ) from error


def load_folder(folder: Path, where: Placement, progress: Progress) -> Loaded:
    """Model and chat format of a folder that was checked before. Raises LoadFailed."""
    chat_format = load_format(folder)
    progress.begin("Loading weights", unit="tensor")
    small = stored_small(folder) if where.halves else None
    try:
        model = _read(folder, small or where.dtype, progress)
        if small and not waiting.widen(model):
            del model  # or there would be two
            model = _read(folder, where.dtype, progress)
        if where.quantize:
            Quantizer(where.quantize, where.device).whole(model)
        return Loaded(model.to(where.device).eval(), chat_format)
    except (torch.OutOfMemoryError, LoadFailed):
        raise
    except Exception as error:  # files from anywhere meet a large library
        raise LoadFailed(f"The model in {folder} cannot be loaded: {first_line(error)}.") from error


def _read(folder: Path, dtype: torch.dtype, progress: Progress) -> Any:
    loader: Any = AutoModelForCausalLM
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    config._attn_implementation = servable.attention(config)  # a file may name another one
    with reporting(progress):
        model, report = loader.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            attn_implementation=servable.attention(config),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported, and refused below in clearer words
        )
    check_complete(folder, report)
    model.config._attn_implementation = attention.NAME  # ours can do what the library's cannot
    if dtype == torch.float32:
        for parameter in model.parameters():  # beside 8-bit floats it leaves others in bfloat16
            if parameter.dtype in waiting.SMALL:
                parameter.data = parameter.data.float()
    return model


def check_complete(folder: Path, report: dict[str, Any]) -> None:
    """Refuse what transformers only warns of: weights that are not in the files are random."""
    if missing := sorted(report["missing_keys"]):
        raise LoadFailed(
            f"{folder} lacks the weights {first_of(missing)}, so it is not the whole model. "
            "Download it again."
        )
    if mismatched := sorted(name for name, *_ in report["mismatched_keys"]):
        raise LoadFailed(
            f"{folder} holds weights of other sizes than its config.json says, "
            f"{mismatched[0]} for one. Download it again."
        )


def load_format(folder: Path) -> TemplateFormat:
    """The tokenizer of a folder and its chat template, tried. Raises LoadFailed."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        if not tokenizer.chat_template:
            raise LoadFailed(
                f"{folder} has no chat template, so it is not a chat model. "
                "Choose its chat or instruct variant."
            )
        chat_format = TemplateFormat(tokenizer, stop_ids=stop_ids(folder, tokenizer))
        chat_format.check_template()
        return chat_format
    except LoadFailed:
        raise
    except BadTurns as error:
        raise LoadFailed(f"{folder} cannot answer: {error}") from error
    except Exception as error:  # as above: anything
        raise LoadFailed(f"{folder} has no usable tokenizer: {first_line(error)}.") from error


def load_config(folder: Path, config: dict[str, Any]) -> Any:
    """transformers' config object, or a sentence about why there is none."""
    architectures = config.get("architectures") or []
    listed = architectures if isinstance(architectures, list) else []
    if not any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in listed):
        raise LoadFailed(
            f"{folder / 'config.json'} names {architectures or 'no architecture'}, "
            "which is not a causal language model that transformers loads natively."
        )
    try:
        known = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # as above: anything
        raise LoadFailed(f"{folder / 'config.json'} is not usable: {first_line(error)}.") from error
    servable.check(folder, known)
    check_context(folder / "config.json", known)
    return known


def stop_ids(folder: Path, tokenizer: Any) -> frozenset[int]:
    """Every id that ends a turn: the generation config's and the tokenizer's own.

    Where there is no generation config, transformers makes one of config.json.
    """
    file = folder / "generation_config.json"
    if not file.exists():
        file = folder / "config.json"
    try:
        configured = GenerationConfig.from_pretrained(folder, file.name).eos_token_id
    except Exception as error:  # as above: anything
        raise LoadFailed(f"{file} is not usable: {first_line(error)}.") from error
    ids = [*(configured if isinstance(configured, list) else [configured]), tokenizer.eos_token_id]
    return frozenset(token_id for token_id in ids if isinstance(token_id, int))


def files_read(folder: Path) -> list[Path]:
    """The files of a folder that loading it reads."""
    wanted = ("*.json", "*.safetensors", "*.jinja", "*.model")
    return present(folder, wanted)


@contextmanager
def reporting(progress: Progress) -> Iterator[None]:
    """transformers' bars go to `progress` while this lasts."""
    bar = progress.tqdm_class()
    previous = transformers_logging.set_tqdm_hook(lambda _, args, options: bar(*args, **options))
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(previous)
