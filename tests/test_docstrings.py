"""Docstrings say what signatures say: every argument that is there, and none that is not.

Cannot detect: a description that is wrong, or one that is missing where none is described.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gencg"
MODULES = sorted(PACKAGE.rglob("*.py"))
Documented = ast.FunctionDef | ast.ClassDef


def test_every_argument_is_described_in_its_order() -> None:
    wrong = []
    for path, owner, node in documented():
        described = section(node, "Args")
        if described is not None and described != arguments(node):
            wrong.append(f"{path}: {owner} describes {described}, takes {arguments(node)}")
    assert wrong == []


def test_every_field_is_described() -> None:
    wrong = []
    for path, owner, node in documented():
        described = section(node, "Attributes")
        if described is not None and is_dataclass(node) and {*described} != {*fields(node)}:
            wrong.append(f"{path}: {owner} describes {described}, has {fields(node)}")
    assert wrong == []


def test_errors_that_are_raised_at_the_entrance_are_described() -> None:
    # What a public function raises by itself, not what it calls
    wrong = []
    for path, owner, node in documented():
        described = section(node, "Raises")
        if described is not None and isinstance(node, ast.FunctionDef):
            wrong += [
                f"{path}: {owner} raises {name} and describes {described}"
                for name in raised(node) - {*described} - {"AttributeError"}
            ]
    assert wrong == []


@pytest.mark.parametrize(
    "room", ["analysis", "discover", "export", "plots", "pretrained", "run", "systems"]
)
def test_what_a_room_lists_has_its_arguments_described(room: str) -> None:
    # One argument, or none but `ax`, may be told of in the sentence
    listed = re.findall(r" as (\w+)$", (PACKAGE / room / "__init__.py").read_text(), re.MULTILINE)
    bare = [
        owner
        for path, owner, node in documented()
        if path.startswith(f"gencg/{room}/")
        and owner in listed
        and isinstance(node, ast.FunctionDef)
        and len(arguments(node)) > 2
        and section(node, "Args") is None
    ]
    assert bare == []


def test_the_reader_of_docstrings_reads() -> None:
    (node,) = ast.parse(
        'def f(self, a, *, b=1, **c):\n    """What.\n\n    Args:\n        a: One: two,\n'
        "            three: four.\n        b: Five.\n\n    Raises:\n        ValueError: If.\n"
        '    """\n'
        "    raise TypeError('x')\n"
    ).body
    assert isinstance(node, ast.FunctionDef)
    assert section(node, "Args") == ["a", "b"]
    assert arguments(node) == ["a", "b", "c"]
    assert section(node, "Raises") == ["ValueError"]
    assert section(node, "Attributes") is None
    assert raised(node) == {"TypeError"}


def documented() -> Iterator[tuple[str, str, Documented]]:
    """Public classes, functions and methods, with file and dotted name."""
    for module in MODULES:
        path = module.relative_to(PACKAGE.parent).as_posix()
        yield from ((path, owner, node) for owner, node in within(ast.parse(module.read_text())))


def within(tree: ast.AST, owner: str = "") -> Iterator[tuple[str, Documented]]:
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
            continue
        yield owner + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from within(node, f"{owner}{node.name}.")


def section(node: Documented, name: str) -> list[str] | None:
    """Names that a section of the docstring describes, without stars; None without the section."""
    text = (ast.get_docstring(node) or "") + "\n"
    found = re.search(rf"^{name}:\n((?: +.*\n|\s*\n)+)", text, re.MULTILINE)
    if found is None:
        return None
    return [
        match.lstrip("*") for match in re.findall(r"^    (\*{0,2}\w+):", found[1], re.MULTILINE)
    ]


def arguments(node: Documented) -> list[str]:
    """Arguments of a function or of the making of a class, without self and stars."""
    if isinstance(node, ast.ClassDef):
        makers = [n for n in node.body if getattr(n, "name", "") == "__init__"]
        return arguments(makers[0]) if makers else fields(node)  # type: ignore[arg-type]
    a = node.args
    rest = [[a.vararg] if a.vararg else [], a.kwonlyargs, [a.kwarg] if a.kwarg else []]
    names = [arg.arg for group in [a.posonlyargs, a.args, *rest] for arg in group]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def fields(node: ast.ClassDef) -> list[str]:
    """Annotated names of a class body, which are the fields of a dataclass."""
    return [
        n.target.id
        for n in node.body
        if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    ]


def is_dataclass(node: Documented) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def raised(node: ast.FunctionDef) -> set[str]:
    """Names of the errors that a function raises itself."""
    calls = [n.exc for n in ast.walk(node) if isinstance(n, ast.Raise)]
    return {
        call.func.id
        for call in calls
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
    }
