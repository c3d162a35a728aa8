"""A picture that tells where it was clicked: one small widget of our own, nothing loaded."""

from typing import Any

import anywidget
import traitlets

_SCRIPT = """
function render({ model, el }) {
  const box = document.createElement("div");
  box.style.cssText = "position:relative;display:inline-block;cursor:crosshair;background:white";
  const image = document.createElement("img");
  image.style.cssText = "display:block;max-width:100%;user-select:none";
  image.draggable = false;
  const space = "http://www.w3.org/2000/svg";
  const over = document.createElementNS(space, "svg");
  over.style.cssText = "position:absolute;inset:0;width:100%;height:100%;pointer-events:none";
  over.setAttribute("viewBox", "0 0 1 1");
  over.setAttribute("preserveAspectRatio", "none");
  const dots = document.createElement("div");
  dots.style.cssText = "position:absolute;inset:0;pointer-events:none";
  box.append(image, over, dots);
  el.append(box);
  const draw = () => {
    over.replaceChildren();
    for (const part of model.get("lines")) {
      for (const [colour, width] of [["white", 5], ["#222222", 2]]) {
        const line = document.createElementNS(space, "polyline");
        line.setAttribute("points", part.map((p) => p.join(",")).join(" "));
        line.setAttribute("fill", "none");
        line.setAttribute("stroke", colour);
        line.setAttribute("stroke-width", width);
        line.setAttribute("vector-effect", "non-scaling-stroke");
        over.append(line);
      }
    }
    dots.replaceChildren();
    for (const { x, y, colour, text } of model.get("marks")) {
      const dot = document.createElement("div");
      dot.textContent = text;
      dot.style.cssText = `position:absolute;left:${100 * x}%;top:${100 * y}%;width:18px;` +
        `height:18px;margin:-9px;border-radius:50%;background:${colour};color:white;` +
        "border:2px solid white;box-sizing:border-box;font:bold 10px sans-serif;" +
        "display:flex;align-items:center;justify-content:center;box-shadow:0 0 3px #0008";
      dots.append(dot);
    }
  };
  const show = () => { image.src = "data:image/png;base64," + model.get("png"); };
  image.addEventListener("click", (event) => {
    const at = image.getBoundingClientRect();
    model.set("clicked", [
      (event.clientX - at.left) / at.width,
      (event.clientY - at.top) / at.height,
      Date.now(),
    ]);
    model.save_changes();
  });
  model.on("change:png", show);
  model.on("change:marks", draw);
  model.on("change:lines", draw);
  show();
  draw();
}
export default { render };
"""


class ClickMap(anywidget.AnyWidget):  # type: ignore[misc]
    """A PNG with marks and lines over it.

    Attributes:
        png: The picture, base64.
        marks: Dots to draw: ``x``, ``y`` as shares of the picture from its top left corner,
            ``colour`` and ``text``.
        lines: Lines to draw, each a list of ``[x, y]``.
        clicked: Where it was clicked last, as shares, and a number that differs each time.
    """

    _esm = _SCRIPT
    png: Any = traitlets.Unicode("").tag(sync=True)
    marks: Any = traitlets.List([]).tag(sync=True)
    lines: Any = traitlets.List([]).tag(sync=True)
    clicked: Any = traitlets.List([]).tag(sync=True)
