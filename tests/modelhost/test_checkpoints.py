"""Checkpoints: found, described and loaded; what is refused is in test_broken_folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from modelhost import checkpoints, loading
from modelhost.checkpoints import Placement
from modelhost.checkpoints.files import fingerprint
from modelhost.checkpoints.shards import INDEX, SINGLE
from modelhost.errors import LoadFailed
from modelhost.progress import Progress
from modelhost.types import ModelSpec, Sampling, Turn
from tests.modelhost.conftest import CPU
from tests.modelhost.folders import edit, pipe, remove, spec_of


@pytest.mark.parametrize(
    ("method", "library"),
    [
        ({"quant_method": "gptq", "bits": 4}, "optimum"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "gptqmodel"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "compressed-tensors", "config_groups": {}}, "compressed-tensors"),
        ({"quant_method": "hqq", "quant_config": {}}, "HQQ"),
    ],
)
def test_a_description_names_the_library_that_quantized_weights_lack(folder, method, library):
    edit("config.json", quantization_config=method)(folder)
    with pytest.raises(LoadFailed, match=library) as described:
        loading.describe(spec_of(folder))
    with pytest.raises(LoadFailed) as refused:
        loading.load(spec_of(folder), Progress())

    assert str(described.value) == str(refused.value)


def test_eight_bit_floats_need_no_library(folder):
    edit("config.json", quantization_config={"quant_method": "fp8"})(folder)

    assert loading.describe(spec_of(folder)).architecture == "LlamaForCausalLM"


def test_a_cache_larger_than_the_memory_is_refused_by_its_settings_name(tiny_folder):
    spec = ModelSpec(model=str(tiny_folder), device="cpu", cache_tokens=10**12)

    with pytest.raises(LoadFailed, match=r"with its cache does not fit.*LLMSITE_CACHE_TOKENS"):
        loading.load(spec, Progress())


def test_a_good_folder_loads_and_answers(folder, finish):
    progress = Progress()

    engine = loading.load(spec_of(folder), progress)

    ticket = engine.submit(engine.render([Turn("user", "hi")]).token_ids, Sampling(max_tokens=5))
    assert len(finish(ticket)) == 5
    engine.stop()
    assert engine.card.name == "model"
    assert engine.card.architecture == "LlamaForCausalLM"
    assert (engine.card.device, engine.card.dtype) == ("cpu", "float32")
    assert progress.snapshot.stage == "Making the first token"


def test_a_folder_in_shards_loads(folder):
    tensors = load_file(folder / SINGLE)
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, some in shards.items():
        save_file({name: tensors[name] for name in some}, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, some in shards.items() for name in some}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / SINGLE).unlink()
    checkpoint = checkpoints.locate(spec_of(folder), Progress())

    loaded = checkpoint.load(Placement(CPU, torch.float32), Progress())

    described = checkpoint.describe(Placement(CPU, torch.float32))
    assert described.parameters == loaded.model.num_parameters()


def test_a_description_comes_from_the_small_files(folder):
    checkpoint = checkpoints.locate(spec_of(folder), Progress())

    described = checkpoint.describe(Placement(CPU, torch.float16))

    parameters = described.parameters
    assert described.as_json() == {
        "name": "model",
        "revision": checkpoint.revision,
        "kind": "hub",
        "architecture": "LlamaForCausalLM",
        "parameters": parameters,
        "dtype": "float16",
        "device": "cpu",
        "context_length": 512,
        "memory_bytes": 2 * parameters,
        "files": [str(file) for file in checkpoints.hub.files_read(folder)],
        "adapter": "",
    }
    assert parameters > 10_000


def test_what_else_lies_in_a_folder_is_nobodys_business(folder):
    known = loading.describe(spec_of(folder))
    (folder / "gone.json").symlink_to("nowhere")
    (folder / "itself.json").symlink_to("itself.json")
    (folder / "folder.json").mkdir()
    pipe("pipe.json")(folder)
    pipe(INDEX)(folder)

    assert loading.describe(spec_of(folder)) == known


def test_a_file_that_goes_while_it_is_read_is_a_sentence(tmp_path):
    with pytest.raises(
        LoadFailed, match=r"gone\.json cannot be read \(No such file or directory\)"
    ):
        fingerprint([tmp_path / "gone.json"])


def test_a_folder_has_no_other_revisions(folder):
    for model in (str(folder), "demo"):
        with pytest.raises(LoadFailed, match="revision main cannot be used"):
            checkpoints.locate(ModelSpec(model=model, revision="main"), Progress())


def test_the_revision_of_a_folder_tells_versions_apart(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    first = checkpoints.locate(spec_of(folder), Progress()).revision

    assert checkpoints.locate(spec_of(copy), Progress()).revision == first
    edit("generation_config.json", max_length=7)(copy)
    assert checkpoints.locate(spec_of(copy), Progress()).revision != first


def test_a_model_that_does_not_say_its_context_has_a_modest_one():
    assert (
        checkpoints.config.context_length(
            SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=3))
        )
        == 2048
    )


def test_ids_that_end_a_turn_are_config_jsons_where_nothing_else_names_them(folder):
    remove("generation_config.json")(folder)
    edit("config.json", eos_token_id=[2, 77])(folder)

    chat_format = checkpoints.locate(spec_of(folder), Progress()).chat_format()

    assert chat_format.stop_ids == {2, 77}


def test_an_attention_that_the_config_names_does_not_matter(folder, finish):
    edit("config.json", _attn_implementation="flash_attention_2")(folder)

    assert loading.describe(spec_of(folder)).parameters
    engine = loading.load(spec_of(folder), Progress())

    ticket = engine.submit(engine.render([Turn("user", "hi")]).token_ids, Sampling(max_tokens=2))
    assert len(finish(ticket)) == 2
    engine.stop()


def test_weights_in_eight_bit_floats_and_those_beside_them_become_what_is_computed_in(folder):
    size = 16  # of a block with a scale
    tensors, whole = load_file(folder / SINGLE), {}
    for name, weight in list(tensors.items()):
        tensors[name] = weight.bfloat16()
        if "_proj" in name:
            rows, columns = weight.shape
            blocks = weight.view(rows // size, size, columns // size, size)
            scales = blocks.abs().amax((1, 3)) / 448
            small = (blocks / scales[:, None, :, None]).to(torch.float8_e4m3fn)
            wide = small.float() * scales[:, None, :, None]
            tensors[name], whole[name] = small.view(rows, columns), wide.view(rows, columns)
            tensors[f"{name}_scale_inv"] = scales
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    how = {"quant_method": "fp8", "weight_block_size": [size, size]}
    edit("config.json", quantization_config=how)(folder)

    loaded = checkpoints.locate(spec_of(folder), Progress()).load(
        Placement(CPU, torch.float32), Progress()
    )

    for name, weight in loaded.model.named_parameters():
        expected = whole[name] if name in whole else tensors[name].float()
        torch.testing.assert_close(weight.detach(), expected)  # of the same dtype, too
