"""The house keeps its shape: imports point down, heavy libraries come late, modules and functions stay small."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "fmnist_exp"

# Folders may import from those of later lines, and modules of one folder from each other; two folders of one line
# do not know each other.
LAYERS = [
    ["cli"],
    ["tuning"],
    ["experiment"],
    ["registry"],
    ["figures", "export", "tracking"],
    ["evaluation", "training"],
    ["models", "data"],
    ["config", "backend"],
    ["errors", "compat"],
]
RANK = {folder: rank for rank, layer in enumerate(LAYERS) for folder in layer}
SERVING = {"cli", "tuning", "registry", "export"}  # the folders that may import serving

# a library → the only folders that may import it
OWNERS = {
    "tensorflow": {"backend"},
    "optuna": {"tuning"},
    "dask": {"tuning"},
    "distributed": {"tuning"},
    "mlflow": {"tracking", "export", "registry", "experiment", "tuning", "cli"},
    "keras": {"backend", "models", "data", "training", "export", "registry", "experiment", "tracking"},
    "onnxruntime": {"serving", "export"},
    "onnx": {"export"},
    "tf2onnx": {"export"},
    "matplotlib": {"figures", "tuning"},
    "plotly": {"tuning"},
    "rich": {"cli", "data"},
    "click": {"cli"},
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def folder(path: Path) -> str:
    """Return the folder or the module right below fmnist_exp that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module(path: Path) -> str:
    """Return the dotted name of a file's module."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imports(path: Path) -> list[tuple[str, int]]:
    """Return the full name of everything a file imports, for type checkers too, with its line."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import hides the layer"
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def own_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines of a function, without those of the functions inside it."""
    inside = {line for f in functions(function)[1:] for line in range(f.lineno, (f.end_lineno or 0) + 1)}
    return len(set(range(function.lineno, (function.end_lineno or 0) + 1)) - inside)


def test_every_folder_has_a_layer():
    assert {folder(path) for path in MODULES} == {*RANK, "serving", "__init__", "__main__"}


@pytest.mark.parametrize("path", MODULES, ids=module)
def test_imports_point_down(path):
    own = folder(path)
    for name, line in imports(path):
        package, _, rest = name.partition(".")
        if package != "fmnist_exp" or own == "__main__":
            continue
        target = rest.split(".")[0]
        if own == "serving":
            allowed = target in ("serving", "errors", "compat")
        elif target == "serving":
            allowed = own in SERVING
        else:
            allowed = own == target or RANK[target] > RANK[own]
        assert allowed, f"{path}:{line}: {own} must not import {target}"


def test_modules_import_each_other_in_no_circle():
    names = {module(path) for path in MODULES}
    needs = {}
    for path in MODULES:
        found = {name if name in names else name.rpartition(".")[0] for name, _ in imports(path)}
        needs[module(path)] = (found & names) - {module(path)}
    try:
        list(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize("path", MODULES, ids=module)
def test_libraries_are_imported_by_their_owners_alone(path):
    for name, line in imports(path):
        library = name.partition(".")[0]
        if folder(path) == "compat":  # for type checkers
            continue
        assert folder(path) in OWNERS.get(library, {folder(path)}), f"{path}:{line}: imports {library}"


@pytest.mark.parametrize("path", MODULES, ids=module)
def test_private_apis_of_libraries_are_used_by_compat_alone(path):
    if folder(path) == "compat":
        return
    private = ("keras.src", "tensorflow.python", "mlflow.store", "mlflow.tracking.context", "uvicorn.protocols")
    for name, line in imports(path):
        assert not name.startswith(private), f"{path}:{line}: imports {name}"
        ours = name.startswith(("fmnist_exp", "__future__"))
        assert ours or not any(part.startswith("_") for part in name.split(".")), f"{path}:{line}: imports {name}"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("_"):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            assert owner in ("self", "cls", "os"), f"{path}:{node.lineno}: uses {ast.unparse(node)}"


def test_what_is_served_imports_nothing_of_ours():
    """A copy of these files travels with every model."""
    from fmnist_exp.export import packaging

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


@pytest.mark.parametrize("path", MODULES, ids=module)
def test_modules_and_functions_stay_small(path):
    text = path.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    assert lines <= 260
    for function in functions(ast.parse(text)):
        assert own_lines(function) <= 50, f"{path}:{function.lineno}: {function.name} is too long"


def test_no_module_is_called_utils():
    words = {"utils", "util", "helpers", "common", "misc"}
    assert [path for path in MODULES if set(path.stem.split("_")) & words] == []
