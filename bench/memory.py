"""How much host memory loading a model takes at its peak, beside what its weights take.

    python -m bench.memory --model /models/chatglm3-6b [--dtype fp32]
    python -m bench.memory --layers 2                  # ChatGLM3-6B's shape, random weights

Prints one JSON object, in bytes. The process starts afresh, imports everything, and only then
loads, so `peak` is what loading added at its worst moment: by the design weights and at most
one shard, whose pages are mapped in while its tensors are copied.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.checkpoint import Shape, write_checkpoint


def main() -> None:
    """Measure one load."""
    options = parser().parse_args()
    if options.model:
        print(json.dumps(measure(options.model, options.dtype, options.quantize)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        write_checkpoint(Path(name), Shape(layers=options.layers))
        again = ["--model", name, "--dtype", options.dtype, "--quantize", options.quantize]
        # In a process of its own: writing left its mark on this one.
        subprocess.run([sys.executable, "-m", "bench.memory", *again], check=True)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--model", help="a folder; without one a checkpoint is written and removed")
    made.add_argument("--layers", type=int, default=2, help="of the checkpoint that is written")
    made.add_argument("--folder", help="where to write it; default: the system's")
    made.add_argument("--dtype", default="auto")
    made.add_argument("--quantize", default="")
    return made


def measure(model: str, dtype: str, quantize: str) -> dict[str, int]:
    """Load a model on the CPU through the product's loader, its first token included."""
    from modelhost import loading
    from modelhost.cpu import lean  # noqa: F401  # numba is not what a model takes
    from modelhost.progress import Progress
    from modelhost.types import ModelSpec

    spec = ModelSpec(model=model, dtype=dtype, quantize=quantize, device="cpu", cache_tokens=128)
    known = loading.describe(spec)
    before = resident("VmRSS")
    engine = loading.load(spec, Progress())
    peak = resident("VmHWM") - before
    engine.stop()
    shards = [Path(file) for file in known.files if file.endswith((".safetensors", ".bin"))]
    return {
        "weights": known.memory_bytes,
        "largest_shard": max(file.stat().st_size for file in shards),
        "all_shards": sum(file.stat().st_size for file in shards),
        "before": before,
        "peak": peak,
    }


def resident(name: str) -> int:
    """Memory of this process in bytes: VmRSS is now, VmHWM the most so far."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if not found:
        raise RuntimeError("/proc does not tell the memory of a process")
    return int(found[1]) * 1024


if __name__ == "__main__":
    main()
