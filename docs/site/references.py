"""Names in single backticks: linked where exactly one documented name ends so, code elsewhere."""

from collections import defaultdict
from typing import Any

from docutils import nodes
from sphinx.domains.python import PyXRefRole
from sphinx.util.nodes import make_refnode


class Names:
    """Documented names by their last parts, gathered when the first reference asks."""

    def __init__(self) -> None:
        self.by_last: dict[str, list[str]] = defaultdict(list)

    def ending(self, name: str, objects: dict[str, Any]) -> list[str]:
        """Full names that end with a name, part by part."""
        if not self.by_last:
            for full in objects:
                self.by_last[full.rpartition(".")[2]].append(full)
        candidates = self.by_last.get(name.rpartition(".")[2], [])
        return [full for full in candidates if full == name or full.endswith(f".{name}")]

    def resolve(self, app: Any, env: Any, node: nodes.Element, content: nodes.Element) -> Any:
        """The link of a reference that Sphinx found no target for."""
        if node.get("refdomain") != "py":
            return None
        objects = env.domains["py"].objects
        found = self.ending(node["reftarget"].lstrip("~.").removesuffix("()"), objects)
        if len(found) != 1:
            return content if node["reftype"] == "obj" else None
        entry = objects[found[0]]
        there = (entry.docname, entry.node_id)
        return make_refnode(app.builder, node["refdoc"], *there, content, title=found[0])


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    role = PyXRefRole()
    app.add_role("named", lambda _, *rest: role("py:obj", *rest))
    app.connect("missing-reference", Names().resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
