// Pointer events on an embedding map: a click picks the nearest query, a drag those inside the line drawn. The result
// goes into the input of class vg-picked: "<time> query <row>", "<time> lasso <row> <row> ..." or "<time> all".
const map = event.currentTarget, svg = map.querySelector("svg"), line = svg.querySelector(".vg-lasso");
const here = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
if (event.type === "pointerdown" && event.button === 0 && svg.contains(event.target)) {
  map.lasso = [here];
  svg.setPointerCapture(event.pointerId);
} else if (event.type === "pointermove" && map.lasso) {
  map.lasso.push(here);
  line.setAttribute("points", map.lasso.map(p => `${p.x.toFixed(1)},${p.y.toFixed(1)}`).join(" "));
} else if (map.lasso) {
  const lasso = map.lasso, from = lasso[0];
  map.lasso = null;
  line.removeAttribute("points");
  if (event.type === "pointerup") {
    const queries = [...svg.querySelectorAll("[data-row]")].map(path => {
      const {e: x, f: y} = path.transform.baseVal[0].matrix;
      return {row: path.dataset.row, out: path.classList.contains("out"), x, y};
    });
    // A ray from a point inside crosses the closed line an odd number of times.
    const isInside = q => lasso.filter((a, i) => {
      const b = lasso[(i + 1) % lasso.length];
      return (a.y > q.y) !== (b.y > q.y) && q.x < a.x + (b.x - a.x) * (q.y - a.y) / (b.y - a.y);
    }).length % 2 === 1;
    let text = "all";
    if (Math.max(...lasso.map(p => Math.hypot(p.x - from.x, p.y - from.y))) > 6) {
      const rows = queries.filter(isInside).map(q => q.row);
      if (rows.length) text = `lasso ${rows.join(" ")}`;
    } else {
      const away = q => Math.hypot(q.x - from.x, q.y - from.y);
      const near = queries.filter(q => !q.out && away(q) < 12).sort((p, q) => away(p) - away(q));
      if (near.length) text = `query ${near[0].row}`;
    }
    const input = map.closest(".vg-embedding-box").querySelector("input.vg-picked, .vg-picked input");
    input.value = `${Date.now()} ${text}`;
    input.dispatchEvent(new Event("change", {bubbles: true}));
  }
}
