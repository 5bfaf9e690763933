"""Captures the outputs of layers, edits one, or runs just a part of a network.

    captured   the outputs of layers during ordinary forward passes
    edited     a layer's output replaced by a function of it
    prefix     pixels -> a layer's output; nothing after the layer is computed
    preactivation   the same without the ReLUs that end the layer
    resumed    a layer's output -> logits; nothing before the layer is computed
    fitting    how many images of a size pass at once in the memory at hand

Layers are dotted module names inside `network.body`, as in the manifest. No other file registers a
hook, and here none outlives its `with` block, errors included.
"""

import contextlib
import copy
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, fx, nn

from robustbias.images import floats
from robustbias.networks.zoo import Network
from robustbias.utils import UserError


@contextlib.contextmanager
def captured(network: Network, layers: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """{layer: output of the last forward pass}, each n u h w, filled while the network runs.

    Raises:
        UserError: An unknown layer, or one whose output its successor overwrites in place (a
            convolution before an in-place ReLU): what stands in it afterwards is not its output.
    """
    maps: dict[str, Tensor] = {}
    versions: dict[str, int] = {}
    with contextlib.ExitStack() as hooks:
        for layer in layers:

            def keep(_module: nn.Module, _inputs: Any, output: Tensor, layer: str = layer) -> None:
                maps[layer], versions[layer] = output, output._version

            hooks.enter_context(_hook(module(network, layer), keep))

        def check(*_: Any) -> None:
            for layer, version in versions.items():
                if maps[layer]._version != version:
                    raise UserError(
                        f"the output of layer {layer} is overwritten in place by what follows it; "
                        "probe the nonlinearity after it instead."
                    )

        hooks.enter_context(_hook(network, check))
        yield maps


@contextlib.contextmanager
def edited(network: Network, layer: str, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While inside, `edit(output)` takes the place of the layer's output.

    Raises:
        UserError: An unknown layer.
    """
    with _hook(module(network, layer), lambda _module, _inputs, output: edit(output)):
        yield


def prefix(
    network: Network, layer: str, pixels: Float[Tensor, "n 3 h w"]
) -> Float[Tensor, "n u a b"]:
    """The layer's output for images in [0, 1]. Raises UserError for an unknown layer."""
    before, _ = _parts(network, layer)
    return before((pixels - network.mean) / network.std)


def preactivation(
    network: Network, layer: str, pixels: Float[Tensor, "n 3 h w"], leak: float = 0.0
) -> Float[Tensor, "n u a b"]:
    """`prefix` without the ReLUs that end the layer, so that silent units have a gradient too.

    Args:
        leak: Share of the gradient that the other ReLUs pass on where they are silent; what they
            put out does not change.

    Raises:
        UserError: An unknown layer.
    """
    before, _ = _parts(network, layer)
    traces = _TRACES[network.body]
    if (key := f"{layer} before ReLU {leak} {network.body.training}") not in traces:
        # containers are new, modules that compute are the network's
        traces[key] = fx.GraphModule(before, copy.deepcopy(before.graph))
        traces[key].set_submodule(layer, _without_last_relus(module(network, layer)))
        if leak:
            for part in (traces[key], traces[key].get_submodule(layer)):
                _leaking(part, leak)
    return traces[key]((pixels - network.mean) / network.std)


class _Leaky(torch.autograd.Function):
    """A ReLU whose gradient is not 0 but `leak` where it is silent."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, leak: float) -> Tensor:
        out = x.clamp_min(0)
        ctx.save_for_backward(out)
        ctx.leak = leak
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        return torch.where(out > 0, gradient, ctx.leak * gradient), None


def _leaking(part: nn.Module, leak: float) -> None:
    """Replaces the ReLUs in a traced module."""

    def leaky(x: Tensor) -> Tensor:
        return _Leaky.apply(x, leak)

    if not isinstance(part, fx.GraphModule):
        return
    for node in list(part.graph.nodes):
        if _is_relu(part, node):
            with part.graph.inserting_after(node):
                other = part.graph.call_function(leaky, (node.all_input_nodes[0],))
            node.replace_all_uses_with(other)
            part.graph.erase_node(node)
    part.recompile()


def _is_relu(part: fx.GraphModule, node: fx.Node) -> bool:
    on = part.get_submodule(node.target) if node.op == "call_module" else node.target
    return isinstance(on, nn.ReLU) or on in (F.relu, torch.relu, "relu")


def _without_last_relus(layer: nn.Module) -> nn.Module:
    """The layer with the ReLUs after its last convolution, normalisation or addition left out."""
    if isinstance(layer, nn.ReLU):
        return nn.Identity()
    if layer.__module__.startswith("torch.nn") and not isinstance(layer, nn.Sequential):
        return layer
    half = fx.symbolic_trace(layer)
    ends = list(half.graph.output_node().all_input_nodes)
    while ends:
        node = ends.pop()
        on = half.get_submodule(node.target) if node.op == "call_module" else node.target
        if _is_relu(half, node):
            node.replace_all_uses_with(node.all_input_nodes[0])
            half.graph.erase_node(node)
        elif on is torch.cat or isinstance(on, nn.Dropout):
            ends += node.all_input_nodes
    half.recompile()
    return half


def resumed(
    network: Network, layer: str, activations: Float[Tensor, "n u a b"]
) -> Float[Tensor, "n k"]:
    """Logits from the layer's output.

    Raises:
        UserError: An unknown layer, or one that is bypassed, so that its output alone does not
            determine the logits (a branch, or a convolution inside a residual block).
    """
    _, after = _parts(network, layer)
    if after is None:
        raise UserError(
            f"the logits of {network.entry.name} depend on more than the output of {layer}; "
            f"resume from a layer that everything passes through, like {', '.join(network.layers)}."
        )
    return after(activations)


def linear_head(network: Network, layer: str) -> nn.Linear | None:
    """The linear map that follows the layer after a spatial mean, if nothing else does.

    Raises:
        UserError: An unknown layer.
    """
    _, after = _parts(network, layer)
    following = []
    for node in after.graph.nodes if after else ():
        if node.op == "call_module":
            following.append(after.get_submodule(node.target))
        elif node.op.startswith("call") and node.target not in (torch.flatten, "flatten"):
            return None
    following = [m for m in following if not isinstance(m, nn.Dropout | nn.Flatten)]
    match following:
        case [nn.AdaptiveAvgPool2d(output_size=1 | (1, 1)), nn.Linear() as linear]:
            return linear if linear.bias is not None else None
    return None


def module(network: Network, layer: str) -> nn.Module:
    """The module of that name inside the network's body. Raises UserError when there is none."""
    try:
        return network.body.get_submodule(layer)
    except AttributeError:
        raise UserError(
            f"{network.entry.name} has no layer {layer!r}; its probed layers are: "
            f"{', '.join(network.layers)}."
        ) from None


@contextlib.contextmanager
def _hook(on: nn.Module, function: Callable) -> Iterator[None]:
    handle = on.register_forward_hook(function)
    try:
        yield
    finally:
        handle.remove()


class _Tracer(fx.Tracer):
    """Follows the body's code down to modules of torch, but not into the layer itself."""

    def __init__(self, layer: str):
        super().__init__()
        self.layer = layer

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return qualified_name == self.layer or super().is_leaf_module(module, qualified_name)


# weights are shared with the network, not copied: only the order of calls is kept here
_TRACES: weakref.WeakKeyDictionary[nn.Module, dict[str, Any]] = weakref.WeakKeyDictionary()


def _parts(network: Network, layer: str) -> tuple[nn.Module, nn.Module | None]:
    """The body cut behind the layer; no second half where something bypasses the layer."""
    module(network, layer)  # raises for an unknown one
    traces = _TRACES.setdefault(network.body, {})
    key = f"{layer} {network.body.training}"
    if key not in traces:
        graph = _Tracer(layer).trace(network.body)
        nodes = list(graph.nodes)
        (at,) = [n for n in nodes if n.op == "call_module" and n.target == layer]
        traces[key] = _before(network.body, nodes, at), _after(network.body, nodes, at)
    return traces[key]


def _before(body: nn.Module, nodes: list[fx.Node], at: fx.Node) -> nn.Module:
    graph, copies = fx.Graph(), {}
    for node in nodes[: nodes.index(at) + 1]:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[at])
    half = fx.GraphModule(body, graph)
    half.graph.eliminate_dead_code()  # branches that have not met the layer yet
    half.recompile()
    return half


def _after(body: nn.Module, nodes: list[fx.Node], at: fx.Node) -> nn.Module | None:
    graph = fx.Graph()
    copies = {at: graph.placeholder("activations")}
    for node in nodes[nodes.index(at) + 1 :]:
        if node.op not in ("get_attr", "output") and not node.all_input_nodes:
            continue
        if not all(read in copies for read in node.all_input_nodes):
            return None
        copies[node] = graph.node_copy(node, copies.__getitem__)
    return fx.GraphModule(body, graph)


@torch.no_grad()
def peaks(
    network: Network, pixels: UInt8[Tensor, "n 3 h w"], layers: Sequence[str], batch: int = 200
) -> dict[str, Float[Tensor, "n u"]]:
    """The largest activation of each unit anywhere in each image."""
    batches: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    with captured(network, layers) as maps:
        for part in pixels.split(fitting(network, pixels, batch, held=True)):
            network(floats(part))
            for layer in layers:
                batches[layer].append(maps[layer].amax((2, 3)))
    return {layer: torch.cat(parts) for layer, parts in batches.items()}


SHARE = 0.2  # of the free memory that the activations of one batch may take
_BYTES: weakref.WeakKeyDictionary[nn.Module, dict[Any, list[int]]] = weakref.WeakKeyDictionary()


def fitting(
    network: nn.Module, pixels: Tensor, most: int, *, held: bool = False, layer: str = ""
) -> int:
    """How many images of this size pass the network at once: `most`, or fewer if memory is short.

    Args:
        pixels: Any number of images, of which only the size and the device count.
        held: The activations of all layers stay in memory: for gradients, or captured.
        layer: `pixels` are outputs of this layer, from which the network is `resumed`.
    """
    if layer:
        network = _parts(network, layer)[1] or network
    by_side = _BYTES.setdefault(network, {})
    if (side := tuple(pixels.shape[1:])) not in by_side:
        by_side[side] = [4 * pixels[0].numel(), *_output_bytes(network, side)]
    outputs = by_side[side]
    # a layer's input, its output and a working copy; what is held, with the gradients of as much
    image = 3 * max(outputs) + held * 2 * sum(outputs)
    device = next(iter([*network.parameters(), *network.buffers()]), pixels).device
    return max(1, min(most, int(SHARE * _free_bytes(device)) // image))


@torch.no_grad()
def _output_bytes(network: nn.Module, side: tuple[int, ...]) -> list[int]:
    """Bytes of what each layer returns for one image."""
    outputs: list[int] = []
    modes = [(module, module.training) for module in network.modules()]
    device = next(iter([*network.parameters(), *network.buffers()]), torch.empty(0)).device
    with contextlib.ExitStack() as hooks:
        for part in network.modules():
            if not any(part.children()):
                hooks.enter_context(_hook(part, lambda _m, _i, y: outputs.append(4 * y.numel())))
        network.eval()  # one image must not count in BatchNorm's statistics
        network(torch.zeros(1, *side, device=device))
        for module, mode in modes:
            module.training = mode
    return outputs


def _free_bytes(device: torch.device) -> int:
    """Memory that can still be allocated, within the limit of a container or a cluster's job."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    free, limit = psutil.virtual_memory().available, Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (most := limit.read_text().strip()).isdigit():
        free = min(free, int(most) - psutil.Process().memory_info().rss)
    return free
