"""Models as ONNX graphs: export, sessions, greedy generation.

The graph of a causal language model is one step with a key-value cache, for prefill and decoding alike:

    input_ids (B, n) int64, past.<layer>.key and .value (B, H_kv, p, d) float32
    -> logits (B, n, |V|) float32, present.<layer>.key and .value (B, H_kv, p + n, d)

Positions go on from p; the mask is causal; there is no padding, so the rows of a batch are equally long.
model.onnx holds no weights: its initializers are external data that point into the model.safetensors beside it
(both formats keep raw little-endian arrays), and float16 stays float16 on disk. ONNX Runtime makes them float32
once, when the session starts, so logits are those of the float32 torch model. The graph carries the SHA-256 of
the weights it was made for.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from ctypes import CDLL
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokenlab import guard
from tokenlab.errors import UserError
from tokenlab.models import intake

if TYPE_CHECKING:
    import onnxruntime
    import torch

    from tokenlab.models import LanguageModel

GRAPH = "model.onnx"
OPSET = 20


# --- sessions


def session(folder: Path, graph: str = GRAPH, weights: str = intake.WEIGHTS) -> onnxruntime.InferenceSession:
    """The session of a graph in `folder`, shared by all who ask; one thread on the CPU.

    UserError: there is no graph, or it was made for other weights than those beside it."""
    path = folder / graph
    if not path.exists():
        raise UserError(
            f"{folder.name} has no {graph}; please run `python -m tokenlab export {folder.name}` or use torch."
        )
    return _session(path.resolve(), weights, path.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _session(path: Path, weights: str, written: int) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # many runs at once share the cores
    options.log_severity_level = 3  # errors
    opened = onnxruntime.InferenceSession(path, options, providers=providers())
    made_for = opened.get_modelmeta().custom_metadata_map.get("weights_sha256")
    if made_for is not None and made_for != _sha256(path.parent / weights):
        name = path.parent.name
        raise UserError(
            f"{path.name} of {name} was made for other weights; please run `python -m tokenlab export {name}`."
        )
    return opened


def providers() -> list[str]:
    """CUDA when the package has it and the machine a driver, then the CPU."""
    import onnxruntime

    found = ["CPUExecutionProvider"]
    # The GPU package lists CUDA on every machine, and complains at length where there is no driver.
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers() and _has_cuda_driver():
        found.insert(0, "CUDAExecutionProvider")
    return found


def _has_cuda_driver() -> bool:
    try:
        CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _sha256(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


# --- running a graph


def step(
    graph: onnxruntime.InferenceSession, ids: np.ndarray, past: Sequence[np.ndarray] | None = None
) -> tuple[np.ndarray, list[np.ndarray]]:
    """One forward pass. ids: (B, n) int64; past: what the step before gave as its second value, None at first.

    Gives logits (B, n, |V|) float32 and the cache: key and value of each layer, (B, H_kv, p + n, d)."""
    first, *caches = graph.get_inputs()
    if past is None:
        past = [np.zeros((len(ids), cache.shape[1], 0, cache.shape[3]), np.float32) for cache in caches]
    feed = {cache.name: tensor for cache, tensor in zip(caches, past, strict=True)}
    logits, *present = graph.run(None, {first.name: ids, **feed})
    return logits, present


def generate(
    graph: onnxruntime.InferenceSession, ids: np.ndarray, new_tokens: int, end: Collection[int] = ()
) -> Iterator[int]:
    """Greedy decoding: the most likely next ids after `ids` (n,), one by one as they are found.

    Stops behind an id in `end`, which is given too. UserError: more positions than the model has; time is up."""
    context = int(graph.get_modelmeta().custom_metadata_map["context"])
    if not 0 < len(ids) <= context - new_tokens:
        raise UserError(
            f"{len(ids):,} tokens and {new_tokens:,} new ones do not fit into {context:,}; please shorten the prompt."
        )
    past = None
    following = np.asarray(ids, np.int64)[None]
    for _ in range(new_tokens):
        guard.check_time()
        logits, past = step(graph, following, past)
        best = int(logits[0, -1].argmax())
        yield best
        if best in end:
            return
        following = np.array([[best]])


# --- export


def export(model: LanguageModel, folder: Path) -> Path:
    """Write folder/model.onnx, and folder/model.safetensors when it is not there yet; gives the graph's path.

    The weights are written as float16 when that loses nothing, else as float32. UserError: the folder holds
    other weights."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / intake.WEIGHTS
    if not weights.exists():
        _save(model, weights)
    stored = _located(model, weights)
    arrays = {key: model.torch.state_dict()[key].numpy() for key in stored}
    return _write(_trace(model), stored, arrays, folder / GRAPH, {"context": str(model.context)})


def export_module(
    module: torch.nn.Module,
    inputs: dict[str, torch.Tensor],
    outputs: Sequence[str],
    dynamic_shapes: tuple,
    path: Path,
    weights: Path,
) -> Path:
    """Write any module as the graph `path`, its weights by reference to the safetensors file `weights` beside it.

    inputs: an example of each input by name, in the order of forward; dynamic_shapes: for each, {axis: Dim}. What
    is not in `weights`, or not as such, is stored in the graph."""
    import torch
    from safetensors.numpy import load_file

    program = torch.onnx.export(
        module,
        tuple(inputs.values()),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_shapes=dynamic_shapes,
        verbose=False,
    )
    arrays = {key: array.astype(np.float32) for key, array in load_file(weights).items()}
    return _write(program.model_proto, intake.read_header(weights, weights.parent.name), arrays, path)


def _write(
    proto: Any,
    stored: dict[str, intake.Stored],
    arrays: dict[str, np.ndarray],
    path: Path,
    metadata: dict[str, str] | None = None,
) -> Path:
    """`proto` as a file beside its weights. stored: where each tensor lies, arrays: the same as float32."""
    _link(proto, stored, arrays)
    _strip(proto)
    (weights,) = {place.path for place in stored.values()}
    for key, value in {**(metadata or {}), "weights_sha256": _sha256(weights)}.items():
        proto.metadata_props.add(key=key, value=value)
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return path


def _save(model: LanguageModel, path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    aliases = intake.tied(model.torch)
    state = {key: tensor for key, tensor in model.torch.state_dict().items() if key not in aliases}
    if all(torch.equal(tensor.half().float(), tensor) for tensor in state.values()):
        state = {key: tensor.half() for key, tensor in state.items()}
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, path, metadata={"format": "pt"})


def _located(model: LanguageModel, weights: Path) -> dict[str, intake.Stored]:
    """Where the model's tensors lie in `weights`. UserError: it holds others."""
    import torch
    from safetensors import safe_open

    stored = intake.check_weights((weights,), model.torch, model.name.removeprefix("hub:"))
    state = model.torch.state_dict()
    with safe_open(weights, framework="pt") as file:
        for key, place in stored.items():
            if not torch.equal(file.get_tensor(place.tensor).float(), state[key]):
                raise UserError(f"{weights.parent.name} holds other weights; please choose another folder.")
    return stored


def _trace(model: LanguageModel) -> Any:
    """The graph of one step as an onnx.ModelProto with its weights inside, as float32."""
    import torch

    config = model.torch.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    names = [f"{layer}.{part}" for layer in range(config.num_hidden_layers) for part in ("key", "value")]
    # Sizes above 1, because torch.export takes 0 and 1 for constants.
    ids = torch.zeros(2, 3, dtype=torch.int64)
    past = [torch.zeros(2, heads, 5, size) for _ in names]
    batch = torch.export.Dim("batch", min=1, max=1024)
    new = torch.export.Dim("new", min=1, max=model.context)
    before = torch.export.Dim("past", min=0, max=model.context)
    program = torch.onnx.export(
        _step_module(model.torch),
        (ids, past),
        dynamo=True,
        opset_version=OPSET,
        input_names=["input_ids", *(f"past.{name}" for name in names)],
        output_names=["logits", *(f"present.{name}" for name in names)],
        dynamic_shapes=({0: batch, 1: new}, [{0: batch, 2: before}] * len(past)),
        verbose=False,
    )
    return program.model_proto


def _step_module(model: torch.nn.Module) -> torch.nn.Module:
    """`model` as a function of ids and a flat cache; mask and positions are made here, from the shapes."""
    import torch
    from transformers import DynamicCache

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor, past: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
            batch, new = ids.shape
            before = past[0].shape[2]
            query = torch.arange(new) + before
            key = torch.arange(before + new)
            mask = torch.where(key[None, :] <= query[:, None], 0.0, torch.finfo(torch.float32).min)
            cache = DynamicCache(list(zip(past[::2], past[1::2], strict=True)))
            out = self.model(
                input_ids=ids,
                attention_mask=mask.expand(batch, 1, new, before + new),
                position_ids=query.expand(batch, new),
                past_key_values=cache,
                use_cache=True,
            )
            return out.logits, [tensor for layer in out.past_key_values.layers for tensor in (layer.keys, layer.values)]

    return Step().eval()


def _link(proto: Any, stored: dict[str, intake.Stored], arrays: dict[str, np.ndarray]) -> None:
    """Replace every initializer that is a weight, or a weight transposed, by its place in the safetensors file."""
    import onnx

    places: dict[tuple, tuple[str, bool]] = {}
    for key, weight in arrays.items():
        places.setdefault(_fingerprint(weight), (key, False))
        if weight.ndim == 3 and len(weight) == 1:  # vector-quantize-pytorch keeps a codebook as (1, K, d)
            weight = weight[0]
            places.setdefault(_fingerprint(weight), (key, False))
        if weight.ndim == 2:
            places.setdefault(_fingerprint(weight.T), (key, True))
    kept, linked, nodes = [], {}, []
    for tensor in proto.graph.initializer:
        found = None
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.dims:
            found = places.get(_fingerprint(onnx.numpy_helper.to_array(tensor)))
        if found is None:
            kept.append(tensor)
            continue
        key, transposed = found
        shape = tuple(tensor.dims)[::-1] if transposed else tuple(tensor.dims)
        source = linked.setdefault((key, shape), _external(key, stored[key], shape)).name
        if transposed:
            nodes.append(onnx.helper.make_node("Transpose", [source], [f"{tensor.name}.stored"], perm=[1, 0]))
            source = f"{tensor.name}.stored"
        nodes.append(onnx.helper.make_node("Cast", [source], [tensor.name], to=onnx.TensorProto.FLOAT))
    rest = list(proto.graph.node)
    del proto.graph.initializer[:], proto.graph.node[:]
    proto.graph.initializer.extend([*kept, *linked.values()])
    proto.graph.node.extend([*nodes, *rest])


def _strip(proto: Any) -> None:
    """Take out what only the exporter's authors read: stack traces, with the paths of this machine in them."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]


def _fingerprint(array: np.ndarray) -> tuple:
    return array.shape, sha256(np.ascontiguousarray(array).tobytes()).digest()


def _external(key: str, place: intake.Stored, shape: tuple[int, ...]) -> Any:
    import onnx

    types = {"F32": onnx.TensorProto.FLOAT, "F16": onnx.TensorProto.FLOAT16, "BF16": onnx.TensorProto.BFLOAT16}
    name = f"{key}:{'x'.join(map(str, shape))}"
    tensor = onnx.TensorProto(name=name, data_type=types[place.dtype], dims=shape)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for entry, value in (("location", place.path.name), ("offset", place.start), ("length", place.size)):
        tensor.external_data.add(key=entry, value=str(value))
    return tensor
