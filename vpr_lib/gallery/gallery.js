// What the gallery does in a browser, in a notebook and as a page: its keys, and the dialog with large photos.
(() => {
"use strict";
window.vprGallery?.abort();  // the listeners of a cell that was run before
window.vprGallery = new AbortController();
const signal = window.vprGallery.signal;
const MAX_ZOOM = 8, STEP = 1.5, CLICK_ZOOM = 2.5;

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// Requests to the kernel, through a hidden text field and a hidden output; a page has neither.
function canAsk(gallery) { return Boolean(gallery.querySelector(".vg-request input")); }

function ask(gallery, words, use = () => {}) {
  const input = gallery.querySelector(".vg-request input"), reply = gallery.querySelector(".vg-reply");
  const id = Date.now().toString(36);
  const observer = new MutationObserver(() => {
    const answer = reply.querySelector(`[data-reply="${id}"]`);
    if (answer) { observer.disconnect(); use(answer); }
  });
  observer.observe(reply, {childList: true, subtree: true});
  input.value = `${id} ${words}`;
  for (const kind of ["input", "change"]) input.dispatchEvent(new Event(kind, {bubbles: true}));
}

// Keys. A notebook takes arrow keys for its own unless an element of the gallery has the focus and says that it needs
// them; keys with Ctrl, Alt or Cmd remain the notebook's.
function focusGallery(gallery) { gallery.focus({preventScroll: true}); }

addEventListener("pointerdown", event => {
  const gallery = event.target.closest?.(".vg-gallery");
  if (gallery && gallery !== document.body) gallery.tabIndex = -1;  // a click between controls must not leave it
}, {signal, capture: true});

addEventListener("keydown", event => {
  const gallery = event.target.closest?.(".vg-gallery");
  const modified = event.ctrlKey || event.altKey || event.metaKey;
  if (!gallery || document.querySelector("dialog.vg-dialog[open]")) return;
  gallery.toggleAttribute("data-lm-suppress-shortcuts", !modified);
  const side = {ArrowLeft: "previous", ArrowRight: "next"}[event.key];
  const isOwn = event.target.matches("select, textarea, input:not([type=checkbox]), [role=slider], [role=tab]");
  if (!side || modified || event.shiftKey || isOwn) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  const button = gallery.querySelector(`button.vg-${side}`);
  button.click();
  // What had the focus may be replaced by the next query.
  if (gallery !== document.body) focusGallery(gallery);
}, {signal, capture: true});

addEventListener("click", event => {
  const gallery = event.target.closest?.(".vg-gallery");
  if (!gallery) return;
  const photo = event.target.closest(".vg-photo"), asking = event.target.closest("[data-ask]");
  if (photo) enlarge(gallery, photo);
  else if (asking && canAsk(gallery)) ask(gallery, asking.dataset.ask);
  // A button of the grid disappears when it is clicked.
  if (gallery !== document.body && !photo && (asking || !gallery.contains(document.activeElement))) focusGallery(gallery);
}, {signal});

// The dialog: the query, the photo that was clicked and the nearest positive, side by side.
function enlarge(gallery, photo) {
  const view = photo.closest(".vg-view");
  const others = [".vg-query figure", ".vg-nearest"].map(place => view?.querySelector(place));
  const figures = [others[0], photo.closest("figure"), others[1]].filter(figure => figure?.querySelector(".vg-photo"));
  const seen = new Set();
  const shown = figures.filter(figure => {
    const key = figure.querySelector(".vg-photo").dataset.id;
    return !seen.has(key) && seen.add(key);
  });
  const isBlind = Boolean(view?.matches(".vg-blind"));  // what the models say is hidden
  const title = make("h2", {id: "vg-dialog-title", textContent: nameOf(photo, isBlind)});
  const pairs = make("div", {className: "vg-dialog-pairs"});
  pairs.setAttribute("aria-live", "polite");
  const photos = make("div", {className: "vg-dialog-photos"}, ...shown.map(each => makeFigure(each, isBlind)));
  const bar = make("div", {className: "vg-dialog-bar"}, title);
  const dialog = make("dialog", {className: `vg vg-dialog${isBlind ? " vg-blind" : ""}`}, bar, photos, pairs);
  dialog.setAttribute("aria-labelledby", title.id);
  const frames = [...dialog.querySelectorAll(".vg-frame")];
  const zoomAll = factor => frames.forEach(frame => zoom(frame, factor));
  const addButton = (text, label, act) => {
    const button = make("button", {type: "button", textContent: text, title: label, onclick: () => act(button)});
    if (text.length === 1) button.setAttribute("aria-label", label);
    bar.append(button);
  };
  addButton("−", "zoom out (key −)", () => zoomAll(1 / STEP));
  addButton("+", "zoom in (key +); the wheel or a click zooms one photo, dragging moves it", () => zoomAll(STEP));
  const pair = photo.closest("figure").dataset.mark;
  if (pair && canAsk(gallery)) {
    const about = {regions: "which regions of both photos account for their similarity", matches: "points found in both"};
    for (const [kind, label] of Object.entries(about)) {
      addButton(kind, label, button => togglePairs(gallery, pairs, kind, pair, button));
    }
  }
  addButton("✕", "close (Esc)", () => dialog.close());
  dialog.addEventListener("keydown", event => {
    event.stopPropagation();
    const factor = {"+": STEP, "=": STEP, "-": 1 / STEP, 0: 1 / MAX_ZOOM}[event.key];
    if (factor && !event.ctrlKey && !event.metaKey) zoomAll(factor);
  });
  dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });  // beside it
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (photo.isConnected) photo.focus(); else focusGallery(gallery);
  });
  document.body.append(dialog);
  dialog.showModal();
  if (canAsk(gallery)) ask(gallery, `photos ${[...seen].join(" ")}`, answer => {
    for (const large of answer.querySelectorAll("img")) {
      const frame = frames.find(each => each.dataset.id === large.dataset.id);
      if (frame) frame.querySelector("img").src = large.src;
    }
  });
}

function nameOf(photo, isBlind) {
  const text = photo.querySelector("img").alt;
  return isBlind ? text.split(/[:,]/)[0] : text;
}

function makeFigure(figure, isBlind) {
  const photo = figure.querySelector(".vg-photo"), caption = figure.querySelector("figcaption");
  const image = photo.querySelector("img");
  const frame = make("div", {className: "vg-frame", tabIndex: 0}, make("img", {src: image.src, alt: nameOf(photo, isBlind)}));
  frame.dataset.id = photo.dataset.id;
  frame.setAttribute("role", "group");
  frame.setAttribute("aria-label", `${nameOf(photo, isBlind)}, large; keys + and − zoom, arrow keys move`);
  let start = null;
  frame.onwheel = event => {
    event.preventDefault();
    const box = frame.getBoundingClientRect();
    zoom(frame, event.deltaY < 0 ? STEP : 1 / STEP, event.clientX - box.left, event.clientY - box.top);
  };
  frame.onpointerdown = event => {
    if (event.pointerType !== "mouse") return;  // fingers scroll by themselves
    event.preventDefault();
    frame.focus();
    frame.setPointerCapture(event.pointerId);
    start = {x: event.clientX, y: event.clientY, left: frame.scrollLeft, top: frame.scrollTop, moved: false};
  };
  frame.onpointermove = event => {
    if (!start) return;
    const [x, y] = [event.clientX - start.x, event.clientY - start.y];
    start.moved ||= Math.hypot(x, y) > 4;
    frame.scrollTo(start.left - x, start.top - y);
  };
  frame.onpointerup = frame.onpointercancel = () => { frame.moved = start?.moved; start = null; };
  frame.onclick = event => {
    if (frame.moved) return;
    const box = frame.getBoundingClientRect(), isLarge = Number(frame.dataset.zoom || 1) > 1;
    zoom(frame, isLarge ? 1 / MAX_ZOOM : CLICK_ZOOM, event.clientX - box.left, event.clientY - box.top);
  };
  const heading = make("h3", {textContent: nameOf(photo, isBlind)});
  const text = make("figcaption", {innerHTML: caption.innerHTML});
  const className = figure.matches(".vg-nearest") ? "vg-card vg-positive" : figure.className;
  return make("figure", {className}, heading, frame, text);
}

// Zooms a photo so that the point (x, y) of its frame, by default the middle, stays where it is.
function zoom(frame, factor, x = frame.clientWidth / 2, y = frame.clientHeight / 2) {
  const before = Number(frame.dataset.zoom || 1), after = Math.min(MAX_ZOOM, Math.max(1, before * factor));
  const [left, top] = [frame.scrollLeft + x, frame.scrollTop + y];
  frame.dataset.zoom = after;
  frame.style.setProperty("--vg-zoom", after);
  frame.scrollTo(left * after / before - x, top * after / before - y);
}

function togglePairs(gallery, pairs, kind, pair, button) {
  const isShown = button.getAttribute("aria-pressed") === "true";
  for (const each of button.parentElement.querySelectorAll("[aria-pressed]")) each.removeAttribute("aria-pressed");
  pairs.replaceChildren();
  if (isShown) return;
  button.setAttribute("aria-pressed", "true");
  pairs.textContent = `computing ${kind} ...`;
  ask(gallery, `${kind} ${pair}`, answer => {
    if (button.getAttribute("aria-pressed") !== "true") return;
    pairs.innerHTML = answer.innerHTML;
    pairs.scrollIntoView({block: "nearest"});
  });
}
})();
