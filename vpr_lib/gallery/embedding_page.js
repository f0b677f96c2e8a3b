// The embedding maps of the page, one for each model and method; none if there are no descriptors.
const maps = [...document.querySelectorAll("[data-map]")];
let picked = null;  // rows of the queries inside the lasso; null for all

function isPicked(query) { return !picked || picked.has(query.row); }

function showMap() {
  const shown = `${at("embedding-model").value}-${at("embedding-method").value}`;
  for (const map of maps) {
    map.parentElement.hidden = map.dataset.map !== shown;
    map.dataset.by = at("embedding-color").value;
  }
}

function dimOthers() {
  const chosen = new Set(rows.map(query => String(query.row)));
  for (const map of maps) map.querySelectorAll("[data-row]").forEach(path =>
    path.classList.toggle("out", !chosen.has(path.dataset.row)));
}

function markOnMaps(query) {
  for (const map of maps) {
    const path = query && map.querySelector(`[data-row="${query.row}"]`), ring = map.querySelector(".vg-ring");
    ring.style.display = path ? "block" : "none";
    if (path) ring.setAttribute("transform", path.getAttribute("transform"));
  }
  const figure = document.querySelector("#view .vg-query figure");
  if (maps.length) at("embedding-query").replaceChildren(...(query && figure ? [figure.cloneNode(true)] : []));
}

if (maps.length) {
  for (const id of ["embedding-model", "embedding-method", "embedding-color"]) at(id).onchange = showMap;
  at("embedding-all").onclick = () => { picked = null; update(); };
  document.querySelector("input.vg-picked").onchange = event => {
    const [, kind, ...list] = event.target.value.split(" ");
    const index = rows.findIndex(query => String(query.row) === list[0]);
    if (kind === "query" && index >= 0) go(index);
    else { picked = kind === "lasso" ? new Set(list.map(Number)) : null; update(); }
  };
  showMap();
}
