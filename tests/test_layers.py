"""The house keeps its shape: imports point down, heavy libraries come late, modules and functions stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fmnist_exp"

# Each layer may import from those below it, and modules of the same layer from each other.
LAYERS = [
    ["__main__"],
    ["cli"],
    ["console"],
    ["tuning"],
    ["gate", "assessment", "smoke", "lineage", "model_card", "weights"],
    ["baseline"],
    ["experiment"],
    ["checkpoints", "origins", "run_files"],
    ["registry"],
    ["tracking"],
    ["packaging"],
    ["serving", "requirements", "document", "onnx_export"],
    ["study_figures", "robustness_figures"],
    ["figures"],
    ["precision"],
    ["training", "evaluation", "comparison", "calibration"],
    ["batches", "averaging", "training_state", "muon"],
    ["data", "augment", "mixing", "models", "corruptions"],
    ["csv_images", "experiment_files", "connection"],
    ["data_sources"],
    ["config"],
    ["search_config"],
    ["section"],
    ["cluster"],
    ["runtime"],
    ["fast_layers"],
    ["errors", "interruption", "machine"],
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

# a library → the only modules that may import it
OWNERS = {
    "tensorflow": {"runtime", "fast_layers"},
    "optuna": {"tuning"},
    "dask": {"cluster"},
    "distributed": {"cluster"},
    "mlflow": {
        "tracking",
        "checkpoints",
        "connection",
        "packaging",
        "registry",
        "serving",
        "origins",
        "lineage",
        "gate",
        "smoke",
        "model_card",
        "assessment",
        "weights",
    },
    "keras": {"runtime", "fast_layers", "models", "batches", "averaging", "training", "training_state", "muon"},
    "onnxruntime": {"serving"},
    "onnx": {"onnx_export"},
    "tf2onnx": {"onnx_export"},
    "matplotlib": {"figures", "study_figures", "robustness_figures"},
    "plotly": {"tuning"},
    "rich": {"console", "cli", "data_sources"},
    "click": {"cli"},
}
# where mlflow is asked for an error's class or the store's address, nothing more
GLIMPSES = {("cli", "mlflow"), ("tuning", "mlflow")}

MODULES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """The module or subpackage right below fmnist_exp that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, int]]:
    """Full names of all that a file imports, wherever it stands, but for type checkers; with the line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative imports hide the layer"
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def own_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How long it is; the functions inside it, as the methods of a class that it defines, are counted alone."""
    inside = {line for f in functions(function)[1:] for line in range(f.lineno, (f.end_lineno or 0) + 1)}
    return len(set(range(function.lineno, (function.end_lineno or 0) + 1)) - inside)


def test_every_module_has_a_layer():
    rooms = {room(path) for path in MODULES} - {"__init__"}
    assert rooms == set(RANK), "give a new module its place in LAYERS"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    if room(path) == "__init__":
        assert imports(path) == []
        return
    for name, line in imports(path):
        package, _, rest = name.partition(".")
        if package == "fmnist_exp":
            target = rest.split(".")[0]
            assert RANK[target] >= RANK[room(path)], f"{path}:{line}: {room(path)} must not import {target}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_libraries_are_imported_by_their_owners_alone(path):
    for name, line in imports(path):
        library = name.partition(".")[0]
        allowed = OWNERS.get(library, {room(path)})
        assert room(path) in allowed or (room(path), library) in GLIMPSES, f"{path}:{line}: imports {library}"


def test_what_is_served_imports_nothing_of_ours():
    """A copy of these files travels with every model."""
    from fmnist_exp import packaging

    names = [name for name, _ in imports(Path(packaging.predictor.__file__))]
    assert [name for name in names if name.startswith("fmnist_exp")] == []


def test_the_command_line_starts_without_heavy_libraries():
    heavy = (
        "keras",
        "tensorflow",
        "mlflow",
        "matplotlib",
        "optuna",
        "sklearn",
        "pandas",
        "onnxruntime",
        "plotly",
        "distributed",
    )
    code = f"import sys, fmnist_exp.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_and_functions_stay_small(path):
    text = path.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    assert lines <= 260
    for function in functions(ast.parse(text)):
        assert own_lines(function) <= 50, f"{path}:{function.lineno}: {function.name} is too long"


def test_no_module_is_called_utils():
    words = {"utils", "util", "helpers", "common", "misc"}
    assert [path for path in MODULES if set(path.stem.split("_")) & words] == []
