"""Names in single backticks: linked where exactly one documented name ends so, code elsewhere."""

from typing import Any

from docutils import nodes
from sphinx.domains.python import PyXRefRole
from sphinx.util.nodes import make_refnode


def _resolve(app: Any, env: Any, node: nodes.Element, content: nodes.Element) -> Any:
    if node.get("refdomain") != "py":
        return None
    name = node["reftarget"].lstrip("~.").removesuffix("()")
    found = {
        full: entry
        for full, entry in env.domains["py"].objects.items()
        if full == name or full.endswith("." + name)
    }
    if len(found) != 1:
        return content if node["reftype"] == "obj" else None
    ((full, entry),) = found.items()
    return make_refnode(
        app.builder, node["refdoc"], entry.docname, entry.node_id, content, title=full
    )


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    role = PyXRefRole()
    role.name = "py:obj"
    app.add_role("named", lambda _, *rest: role("py:obj", *rest))
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
