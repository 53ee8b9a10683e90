"""Nothing of the user's is ever replaced or removed: the places where it could be done, and trials to have it done."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "volseg"
#: The one module that may.
OWNER = "io/written.py"
#: Calls that replace, remove, or make a file of a given name, whatever the library.
_REMOVING = """
    unlink rmtree rmdir remove removedirs rename renames replace move copy copy2 copyfile copytree copymode copystat
    link symlink symlink_to hardlink_to truncate
"""
_WRITING = """
    write_text write_bytes open touch to_csv to_json to_parquet tofile save savez savez_compressed save_as WriteImage
    dcmwrite imwrite savefig memmap TemporaryFile NamedTemporaryFile TemporaryDirectory mkstemp mkdtemp SummaryWriter
    FileHandler
"""
REMOVING, WRITING = frozenset(_REMOVING.split()), frozenset(_WRITING.split())
#: Where one of them is something else, or touches nothing that anybody has.
ALLOWED = {
    ("demo.py", "_make_phantoms", "TemporaryDirectory"): "a new hidden folder",
    ("cli/verb.py", "_keep_traceback", "NamedTemporaryFile"): "a new file among the temporary ones",
    ("loaded_model.py", "predict", "TemporaryDirectory"): "for probabilities, which it reads back",
    ("memory.py", "reset_peak", "write_text"): "a switch of the kernel",
    ("prediction/tasks.py", "batch_task", "touch"): "a new hidden file",
    ("cluster/executor.py", "_end", "remove"): "from a list",
    ("io/record.py", "append_line", "truncate"): "what a killed process has left of a line",
    ("prediction/predictor.py", "_on_disk", "TemporaryFile"): "it has no name",
    ("prediction/predictor.py", "_on_disk", "memmap"): "in the file without a name",
    ("cases/download.py", "_fetch", "open"): "the hidden archive that grows",
    ("cases/download.py", "_fetch", "truncate"): "the hidden archive that grows",
    ("cases/download.py", "_extract", "TemporaryDirectory"): "a new folder",
    ("io/files.py", "make_folder", "touch"): "a new hidden file",
    ("io/itk_paths.py", "readable_path", "TemporaryDirectory"): "for links that ITK can follow",
    ("io/itk_paths.py", "readable_path", "symlink_to"): "in a temporary folder",
    ("io/itk_paths.py", "writable_path", "TemporaryDirectory"): "for a link that ITK can follow",
    ("io/itk_paths.py", "writable_path", "symlink_to"): "in a temporary folder",
    ("io/itk_paths.py", "writable_path", "replace"): "a file being written, onto its hidden name",
    ("io/itk_paths.py", "writable_path", "unlink"): "a file being written",
    ("model/checkpoint.py", "save", "save"): "into memory",
    ("converting/convert.py", "_convert_networks", "save"): "into memory",
    ("converting/bundle.py", "write_bundle", "save"): "into memory",
    ("converting/bundle.py", "_script", "save"): "into memory",
    ("converting/convert.py", "_write_onnx", "save"): "into a new folder",
    ("converting/run_model.py", "main", "save"): "a script by itself: its user names the file",
    ("converting/convert.py", "_write_network", "TemporaryDirectory"): "a new folder, for exporters that name files",
    ("importing/folder.py", "import_model", "save"): "by the function of that name in checkpoint.py",
    ("importing/folder.py", "_import_task", "save"): "by the function of that name in checkpoint.py",
    ("training/state.py", "save_last", "save"): "by the function of that name in checkpoint.py",
    ("model/checkpoint.py", "save_model", "save"): "by the function of that name",
    ("model/checkpoint.py", "finalize_model", "save"): "by the function of that name",
    ("model/checkpoint.py", "set_window", "save"): "by the function of that name",
    ("reporting/picture.py", "_webp", "save"): "into memory",
    ("reporting/exploration.py", "_figure", "save"): "into memory",
    ("api/training.py", "plan", "save"): "by the method of a plan",
    ("training/run.py", "_resolve", "save"): "by the method of a plan",
    ("training/history.py", "_writer", "SummaryWriter"): "event files have names of their own",
}


#: A call, the function it stands in, and the names of temporary paths around it.
Found = tuple[ast.Call, str, frozenset[str]]


def calls(tree: ast.AST, names: frozenset[str] = frozenset(), function: str = "") -> Iterator[Found]:
    """Each call in a module."""
    for node in ast.iter_child_nodes(tree):
        inside, around = function, names
        if isinstance(node, ast.FunctionDef):
            inside = node.name
        if isinstance(node, ast.With):
            given = [
                item.optional_vars.id
                for item in node.items
                if isinstance(item.optional_vars, ast.Name)
                and isinstance(item.context_expr, ast.Call)
                and isinstance(item.context_expr.func, ast.Name)
                and item.context_expr.func.id in {"atomic_path", "new_path", "appearing", "writable_path"}
            ]
            around = names | frozenset(given)
            for item in node.items:
                yield from calls(item, around, inside)
        if isinstance(node, ast.Call):
            yield node, inside, around
        if isinstance(node, ast.With):
            for statement in node.body:
                yield from calls(ast.Module([statement], []), around, inside)
        else:
            yield from calls(node, around, inside)


def called(call: ast.Call) -> str:
    match call.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def replaces_a_path(call: ast.Call) -> bool:
    """Texts are replaced by two arguments, fields by keywords, paths by one argument or through `os`."""
    if called(call) != "replace":
        return True
    if not isinstance(call.func, ast.Attribute):
        return False
    of_os = isinstance(call.func.value, ast.Name) and call.func.value.id == "os"
    return of_os or (len(call.args) == 1 and not call.keywords)


def changes_a_list(call: ast.Call) -> bool:
    """`rows.copy()`, `frame.rename(columns=...)`: they give another object."""
    return called(call) in {"copy", "rename"} and not call.args


def opens_to_read(call: ast.Call) -> bool:
    """Whether the mode of an `open` lets it read only; one without a mode does."""
    if called(call) != "open":
        return False
    words = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    modes = [word.value for word in words if isinstance(word, ast.Constant) and isinstance(word.value, str)]
    return not any(set(mode) & set("wax+") for mode in modes if len(mode) <= 3)


def is_ours(call: ast.Call) -> bool:
    """`write_text(path, text)`, which takes the one way."""
    return isinstance(call.func, ast.Name) and call.func.id == "write_text"


def test_only_one_module_replaces_or_removes_and_files_appear_in_one_way() -> None:
    used, strange = set(), []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).as_posix()
        if module.startswith("serving/"):  # its store is a folder that nothing else may be in: test_dicom_node.py
            continue
        for call, function, temporaries in calls(ast.parse(path.read_text(encoding="utf-8"))):
            name = called(call)
            place = (module, function, name)
            if place in ALLOWED:
                used.add(place)
                continue
            if module == OWNER or name not in REMOVING | WRITING:
                continue
            if opens_to_read(call) or changes_a_list(call) or not replaces_a_path(call) or is_ours(call):
                continue
            mentioned = {node.id for node in ast.walk(call) if isinstance(node, ast.Name)}
            if name in WRITING and mentioned & temporaries:
                continue
            strange.append(f"{module}:{call.lineno} {function} {name}")
    assert not strange, strange
    assert set(ALLOWED) - used == set()
