"""Check an ONNX file: its weights are in it, and the sizes of all its results are known before anything is computed.

Every operator that makes a large tensor of a small one, such as Expand, Tile or ConstantOfShape, is held by the size of
its result at the largest batch. So that no smaller batch has larger results, sizes may be taken from the batch and put
together, but not computed with. Operators that need more memory than their results are not in the list.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, shape_inference

from fmnist_exp.errors import WorkError

SIDE = 28  # pixels
BATCH = 256  # the predictor's images at a time
# Bytes of the results that are in use at once, for each image. A map of 28 × 28 pixels with 1,024 channels has 3 MiB.
PER_IMAGE = 8 * 2**20
NODES = 10_000  # a network of 100 layers has 500
SMALL = 1024  # values of a tensor that may be part of the arithmetic of shapes
NAMES = """
Abs Acos Add ArgMax Asin Atan AveragePool BatchNormalization Cast Ceil Celu Clip Concat Constant ConstantOfShape Conv
Cos Cosh DepthToSpace Div Dropout Elu Equal Erf Exp Expand Flatten Floor Gather Gelu Gemm GlobalAveragePool
GlobalMaxPool Greater GreaterOrEqual HardSigmoid HardSwish Identity LeakyRelu Less LessOrEqual Log LogSoftmax LRN MatMul
Max MaxPool Mean Min Mish Mul Neg OneHot PRelu Pad Pow Range Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin
ReduceSum Relu Reshape Resize Round Selu Shape Sigmoid Sign Sin Sinh Slice Softmax Softplus Softsign SpaceToDepth Split
Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile Transpose Unsqueeze Where
"""
OPERATORS = frozenset(NAMES.split())
ON_SIZES = {"Shape", "Gather", "Slice", "Concat", "Cast", "Constant", "Identity", "Squeeze", "Unsqueeze", "Reshape"}
WHOLE = (TensorProto.INT32, TensorProto.INT64)  # the types of sizes
GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
OTHERS = (AttributeProto.SPARSE_TENSOR, AttributeProto.SPARSE_TENSORS, AttributeProto.TYPE_PROTO)
UNSIZED = (TensorProto.UNDEFINED, TensorProto.STRING)
FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")  # of a tensor without raw_data


def check(file: Path, classes: int) -> None:
    """Raise WorkError, or what the readers raise, unless the model is harmless and has `classes` outputs."""
    model = onnx.load_model_from_string(file.read_bytes())
    if model.functions or model.training_info or model.graph.sparse_initializer:
        raise WorkError("it has functions, training or sparse weights, which this package does not export")
    if len(model.graph.node) > NODES:
        raise WorkError(f"it has {len(model.graph.node):,} operators, and at most {NODES:,} are loaded")
    for node in model.graph.node:
        _check_node(node)
    for weight in model.graph.initializer:
        _check_tensor(weight)
    _check_sizes(model, classes)


def run(file: Path) -> None:
    """Load the model and classify one image. Raises what ONNX Runtime raises."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what matters is raised as well
    options.enable_cpu_mem_arena = False
    session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
    session.run(None, {session.get_inputs()[0].name: np.zeros((1, SIDE, SIDE), np.uint8)})


def _check_node(node: NodeProto) -> None:
    if node.domain not in ("", "ai.onnx"):
        raise WorkError(f"the operator {node.domain}.{node.op_type} is not one of ONNX itself")
    if node.op_type not in OPERATORS:
        raise WorkError(f"the operator {node.op_type} is not one of those that are loaded")
    for attribute in node.attribute:
        if attribute.type in GRAPHS:
            raise WorkError(f"the operator {node.op_type} contains a graph of its own (a condition or a loop)")
        if attribute.type in OTHERS:
            raise WorkError(f"the operator {node.op_type} has an attribute that is neither a number nor a tensor")
        for tensor in (attribute.t, *attribute.tensors):
            if attribute.type in (AttributeProto.TENSOR, AttributeProto.TENSORS):
                _check_tensor(tensor)


def _check_tensor(tensor: TensorProto) -> None:
    """Raise WorkError unless the file has exactly the bytes that the tensor's shape and type need."""
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise WorkError(f"the weights {tensor.name!r} are in another file")
    if tensor.data_type in UNSIZED or min(tensor.dims, default=0) < 0:
        raise WorkError(f"the weights {tensor.name!r} have no numbers or no shape")
    count = math.prod(tensor.dims)
    width = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    found = len(tensor.raw_data) or width * sum(len(getattr(tensor, field)) for field in FIELDS)
    if found != count * width:
        raise WorkError(f"the weights {tensor.name!r} have {found:,} bytes, and their shape needs {count * width:,}")


def _check_sizes(model: ModelProto, classes: int) -> None:
    """Raise WorkError unless the sizes of all results for a batch of images are known, and bounded."""
    graph = model.graph
    if len(graph.input) != 1 or len(graph.output) != 1:
        raise WorkError("it must have one input, the images, and one output, the probabilities")
    pixels = graph.input[0].type.tensor_type
    if pixels.elem_type != TensorProto.UINT8 or len(pixels.shape.dim) != 3:
        raise WorkError(f"its input must be bytes of the shape (N, {SIDE}, {SIDE})")
    given = [helper.make_tensor_value_info(graph.input[0].name, TensorProto.UINT8, (BATCH, SIDE, SIDE))]
    for weight in graph.initializer:  # the large ones are of no use to the inference, which copies everything
        if math.prod(weight.dims) > SMALL:
            given.append(helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))
    kept = [weight for weight in graph.initializer if math.prod(weight.dims) <= SMALL]
    asked = [ValueInfoProto(name=graph.output[0].name, type=graph.output[0].type)]
    asked[0].type.tensor_type.ClearField("shape")
    sketch = helper.make_model(
        helper.make_graph(graph.node, "sketch", given, asked, kept), opset_imports=model.opset_import
    )
    found = shape_inference.infer_shapes(sketch, check_type=True, strict_mode=True, data_prop=True).graph
    kinds = {info.name: info.type.tensor_type.elem_type for info in (*given, *found.value_info, *found.output)}
    _check_arithmetic(graph.node, kinds | {weight.name: weight.data_type for weight in kept})
    sizes = {info.name: _bytes(info) for info in (*found.value_info, *found.output)}
    if [d.dim_value for d in found.output[0].type.tensor_type.shape.dim] != [BATCH, classes]:
        raise WorkError(f"its output must be {classes} probabilities for each image, one for each name")
    _check_peak(graph.node, sizes, graph.output[0].name)


def _check_arithmetic(nodes: Iterable[NodeProto], kinds: Mapping[str, int]) -> None:
    """Raise WorkError if a whole number, which may be a size, is computed instead of taken from a shape."""
    for node in nodes:
        if not any(kinds.get(name) in WHOLE for name in node.output):
            continue
        cast = node.op_type == "Cast" and kinds.get(node.input[0]) not in (*WHOLE, TensorProto.UINT8)
        if node.op_type not in ON_SIZES or cast:
            raise WorkError(f"the operator {node.op_type} computes with whole numbers, of which sizes might be made")


def _bytes(info: ValueInfoProto) -> int | None:
    """Return the size of a result, or None if its type or one of its dimensions is unknown."""
    tensor = info.type.tensor_type
    if tensor.elem_type in UNSIZED or not tensor.HasField("shape"):
        return None
    if not all(dimension.HasField("dim_value") for dimension in tensor.shape.dim):
        return None
    count = int(math.prod(dimension.dim_value for dimension in tensor.shape.dim))
    return int(count * helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize)


def _check_peak(nodes: Iterable[NodeProto], sizes: Mapping[str, int | None], output: str) -> None:
    """Raise WorkError unless the results that are in use at once stay small while the nodes run one after another."""
    nodes = list(nodes)
    last = {name: position for position, node in enumerate(nodes) for name in node.input} | {output: len(nodes)}
    used, ends = 0, dict[int, int]()  # bytes, and those that are given back after each position
    for position, node in enumerate(nodes):
        for name in filter(None, node.output):
            size = sizes.get(name)
            if size is None:
                raise WorkError(f"the size of a result of the operator {node.op_type} is not known before it runs")
            used += size
            end = last.get(name, position)
            ends[end] = ends.get(end, 0) + size
        if used > PER_IMAGE * BATCH:
            raise WorkError(
                f"the operator {node.op_type} would need {used // BATCH:,} bytes for each image, and at most"
                f" {PER_IMAGE:,} are allowed"
            )
        used -= ends.pop(position, 0)
