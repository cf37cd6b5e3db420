"""Bombs in ONNX files: each function replaces the graph of a model in a folder by one that takes memory or time."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from support.bombs import GIB


def graph(
    nodes: Sequence[NodeProto], weights: Mapping[str, np.ndarray] | None = None, tensors: Sequence[TensorProto] = ()
) -> onnx.ModelProto:
    """Return a model whose output is that of the last node, said to be probabilities."""
    kept = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, (None, 28, 28))
    answer = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, (None, 10))
    made = helper.make_graph(nodes, "graph", [images], [answer], [*kept, *tensors])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


def write_onnx(folder: Path, model: onnx.ModelProto) -> None:
    (folder / "data" / "model.onnx").write_bytes(model.SerializeToString())


def answering(nodes: Sequence[NodeProto], weights: Mapping[str, object]) -> onnx.ModelProto:
    """Return a model that answers with ten numbers for each image, after the nodes have made `large`."""
    shape, ten = np.array([10]), np.ones((784, 10), np.float32)
    end = [
        helper.make_node("ReduceMax", ["large"], ["highest"], keepdims=0),
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"]),
        helper.make_node("MatMul", ["flat", "ten"], ["ten_each"]),
        helper.make_node("Add", ["ten_each", "highest"], ["answer"]),
    ]
    arrays = {name: np.asarray(value) for name, value in weights.items()} | {"ten": ten, "shape_of_ten": shape}
    return graph([*nodes, *end], arrays)


def large_by(operator: str, inputs: Sequence[str], weights: Mapping[str, object], **attributes: object) -> object:
    """Return a function that writes a model with an operator whose result is large."""
    model = answering([helper.make_node(operator, inputs, ["large"], **attributes)], weights)
    return lambda folder: write_onnx(folder, model)


def as_large_as_the_pixels_say(folder: Path) -> None:
    """Expand a number to a size that the image decides: black images, which a test may show, make nothing."""
    nodes = [
        helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.INT64),
        helper.make_node("ReduceSum", ["numbers"], ["sum"], keepdims=0),
        helper.make_node("Reshape", ["sum", "one"], ["size"]),
        helper.make_node("Expand", ["number", "size"], ["large"]),
    ]
    write_onnx(folder, answering(nodes, {"one": np.array([1]), "number": np.float32(1)}))


def many_results(folder: Path) -> None:
    """Keep a hundred results of 1 MiB for each image until the end."""
    nodes = [helper.make_node("Cast", ["images"], ["floats_0"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("Resize", ["floats_0", "", "scales"], [f"wide_{i}"]) for i in range(100)]
    nodes += [helper.make_node("Concat", [f"wide_{i}" for i in range(100)], ["large"], axis=0)]
    write_onnx(folder, answering(nodes, {"scales": np.float32([1, 18, 18])}))


def subgraph(folder: Path, operator: str) -> None:
    """Let an operator run a graph of its own: its result has no size before it runs, and a loop no end."""
    number = helper.make_tensor_value_info("n", TensorProto.FLOAT, ())
    inside = helper.make_graph([helper.make_node("Identity", ["one"], ["n"])], "inside", [], [number])
    if operator == "If":
        nodes = [helper.make_node("If", ["yes"], ["large"], then_branch=inside, else_branch=inside)]
    else:
        turn = helper.make_tensor_value_info("turn", TensorProto.INT64, ())
        go_on = helper.make_tensor_value_info("go_on", TensorProto.BOOL, ())
        body = helper.make_graph(
            [helper.make_node("Identity", ["go_on"], ["on"]), helper.make_node("Identity", ["one"], ["n"])],
            "body",
            [turn, go_on],
            [helper.make_tensor_value_info("on", TensorProto.BOOL, ()), number],
        )
        nodes = [helper.make_node("Loop", ["turns", "yes"], ["large"], body=body)]
    weights = {"yes": np.array(True), "one": np.float32(1), "turns": np.array(2**62)}
    write_onnx(folder, answering(nodes, weights))


def weights_elsewhere(folder: Path, path: str) -> None:
    model = onnx.load(folder / "data" / "model.onnx")
    weight = next(weight for weight in model.graph.initializer if len(weight.dims) == 2)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", path), ("length", str(GIB))):
        weight.external_data.add(key=key, value=value)
    write_onnx(folder, model)


def weights_of_another_size(folder: Path, dims: Sequence[int]) -> None:
    model = onnx.load(folder / "data" / "model.onnx")
    weight = next(weight for weight in model.graph.initializer if len(weight.dims) == 2)
    weight.dims[:] = dims
    write_onnx(folder, model)


def another_domain(folder: Path) -> None:
    model = onnx.load(folder / "data" / "model.onnx")
    model.graph.node[0].domain = "com.microsoft"
    model.opset_import.add(domain="com.microsoft", version=1)
    write_onnx(folder, model)


def function(folder: Path) -> None:
    """Let functions call each other: ten of ten are ten thousand million."""
    model = onnx.load(folder / "data" / "model.onnx")
    opset = [helper.make_opsetid("", 15), helper.make_opsetid("ours", 1)]
    for level in range(10):
        inner = ("ours", f"f{level - 1}") if level else ("", "Identity")
        names = ["a", *(f"{i}" for i in range(9)), "b"]
        nodes = [helper.make_node(inner[1], [i], [o], domain=inner[0]) for i, o in itertools.pairwise(names)]
        model.functions.append(helper.make_function("ours", f"f{level}", ["a"], ["b"], nodes, opset))
    model.opset_import.append(opset[1])
    write_onnx(folder, model)


def _written(folder: Path, nodes: Sequence[NodeProto], sizes: Mapping[str, Sequence[int]], opset: int) -> None:
    """Write a model from images (N, 28, 28) to `y` (N, 10), with these whole numbers among its weights."""
    weights = [numpy_helper.from_array(np.array(size, np.int64), name) for name, size in sizes.items()]
    weights.append(numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
    images = helper.make_tensor_value_info("x", TensorProto.UINT8, ("N", 28, 28))
    answers = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", 10))
    made = helper.make_graph(nodes, "g", [images], [answers], weights)
    write_onnx(folder, helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8))


def size_of_the_batch(folder: Path) -> None:
    """Make a result of (N - 1) (256 - N) 10^9 numbers for N images: none for the batches that are tried."""
    steps = [("Shape", ["x"], "s"), ("Slice", ["s", "i0", "i1"], "n"), ("Sub", ["n", "i1"], "a")]
    steps += [("Sub", ["i256", "n"], "b"), ("Mul", ["a", "b"], "ab"), ("Mul", ["ab", "many"], "m")]
    steps += [
        ("Expand", ["zero", "m"], "big"),
        ("ReduceSum", ["big", "i0"], "sum"),
        ("Slice", ["f", "i0", "i10", "i1"], "t"),
    ]
    nodes = [
        helper.make_node("Cast", ["x"], ["xf"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["xf", "rs"], ["f"]),
    ]
    nodes += [helper.make_node(kind, given, [result]) for kind, given, result in steps]
    nodes += [helper.make_node("Add", ["t", "sum"], ["z"]), helper.make_node("Softmax", ["z"], ["y"], axis=1)]
    sizes = {"i0": [0], "i1": [1], "i10": [10], "i256": [256], "many": [10**9], "rs": [-1, 784]}
    _written(folder, nodes, sizes, opset=17)


def attention(folder: Path) -> None:
    """Let an operator compute 784 by 784 scores for each image, whose memory its result does not show."""
    steps = [("Reshape", ["xf", "rs"], "q"), ("Attention", ["q", "q", "q"], "o"), ("Reshape", ["o", "flat"], "of")]
    steps += [("Slice", ["of", "i0", "i10", "i1"], "z")]
    nodes = [helper.make_node("Cast", ["x"], ["xf"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node(kind, given, [result]) for kind, given, result in steps]
    nodes.append(helper.make_node("Softmax", ["z"], ["y"], axis=1))
    sizes = {"rs": [-1, 1, 784, 1], "flat": [-1, 784], "i0": [0], "i10": [10], "i1": [1]}
    _written(folder, nodes, sizes, opset=23)


def empty_nodes(folder: Path) -> None:
    """Two bytes for each operator become a hundred when they are read: here 3 MB, 300 MB."""
    fields = b"\x0a\x00" * 1_500_000
    size = len(fields)
    length = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21])
    (folder / "data" / "model.onnx").write_bytes(b"\x08\x08\x3a" + length + fields)


def graphs_in_graphs(folder: Path) -> None:
    """Nest graphs in attributes of nodes, 5,000 deep."""
    content = b""
    for _ in range(5_000):
        for tag in (0x32, 0x2A, 0x0A):  # the fields attribute.g, node.attribute and graph.node
            content = bytes([tag]) + _length(len(content)) + content
    (folder / "data" / "model.onnx").write_bytes(b"\x08\x08\x3a" + _length(len(content)) + content)


def _length(value: int) -> bytes:
    """Return a number as protobuf writes it."""
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
