"use strict";
// The state of the view; draw() derives everything on the screen from it. Lengths in pictures are in picture px, those
// on the screen in device px, so that the two are equal at 100 %.
const element = (id) => document.getElementById(id);
const data = JSON.parse(element("data").textContent);
element("data").remove(); // it is large, and has been parsed

const stage = element("stage"), canvas = stage.querySelector("canvas"), divider = element("divider");
const context = canvas.getContext("2d", { alpha: false });
const view = {
  scene: 0, left: 0, right: 1, // indices of the scene and its pictures
  x: 0, y: 0, zoom: 1, fitted: true, // the point at the centre of the stage, and the zoom
  mode: "slider", split: 0.5, shown: "right", // "slider", divided at `split`, or "flip", which shows one of the two
  place: -1, // index of the difference jumped to last
};
const scene = () => data.scenes[view.scene];
const pixels = () => window.devicePixelRatio || 1;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// ------------------------------------------------------------------------------------------------------------ tiles

// Decoded tiles, least recently used first. Above this many px, tiles that are not in view are dropped.
const KEPT_PIXELS = 32e6;
const tiles = new Map();
let keptPixels = 0, waiting = 0;

// The bitmap of a tile if it is decoded; otherwise starts decoding it, which redraws the view when done.
function tile(picture, level, number) {
  const key = [view.scene, picture, level, number].join();
  let entry = tiles.get(key);
  if (entry) {
    tiles.delete(key); // reinserted at the end
  } else {
    entry = { bitmap: null };
    decode(entry, scene().pictures[picture].levels[level][number]);
  }
  tiles.set(key, entry);
  entry.drawn = drawing;
  return entry.bitmap;
}

async function decode(entry, text) {
  waiting += 1;
  try {
    const image = new Image();
    image.src = `data:${data.mime};base64,${text}`;
    await image.decode();
    entry.bitmap = await createImageBitmap(image);
    keptPixels += entry.bitmap.width * entry.bitmap.height;
  } finally {
    waiting -= 1;
    redraw();
  }
}

function forget() {
  for (const [key, entry] of tiles) {
    if (keptPixels <= KEPT_PIXELS) return;
    if (!entry.bitmap || entry.drawn === drawing) continue;
    keptPixels -= entry.bitmap.width * entry.bitmap.height;
    entry.bitmap.close();
    tiles.delete(key);
  }
}

// ---------------------------------------------------------------------------------------------------------- drawing

let drawing = 0, asked = false;

function redraw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; draw(); });
}

function draw() {
  drawing += 1;
  hold();
  context.fillStyle = getComputedStyle(stage).backgroundColor;
  context.fillRect(0, 0, canvas.width, canvas.height);
  const border = Math.round(view.split * canvas.width);
  const [left, right] = view.mode === "slider" ? [border, border] : view.shown === "left" ? [canvas.width, canvas.width] : [0, 0];
  paint(view.left, 0, left);
  paint(view.right, right, canvas.width);
  forget();
  tell();
}

// Draws a picture between two columns of the screen. Tiles outside are decoded too, as the slider may move there next.
function paint(picture, from, to) {
  const { width, height } = scene(), levels = scene().pictures[picture].levels;
  const left = Math.round(canvas.width / 2 - view.x * view.zoom), top = Math.round(canvas.height / 2 - view.y * view.zoom);
  const wanted = clamp(Math.floor(Math.log2(1 / view.zoom) + 1e-6), 0, levels.length - 1);
  context.save();
  context.beginPath();
  context.rect(from, 0, to - from, canvas.height);
  context.clip();
  // The coarsest level's single tile is always available, and stands in for tiles that are not decoded yet.
  for (const level of new Set([levels.length - 1, wanted])) {
    const step = data.tile * 2 ** level * view.zoom; // size of a tile on the screen
    const columns = Math.ceil(width / (data.tile * 2 ** level)), rows = Math.ceil(height / (data.tile * 2 ** level));
    const right = left + Math.round(width * view.zoom), bottom = top + Math.round(height * view.zoom);
    context.imageSmoothingEnabled = 2 ** level * view.zoom < 1 || level > 0;
    context.imageSmoothingQuality = "medium";
    const first = (start) => Math.max(0, Math.floor(-start / step)), last = (start, size, count) => Math.min(count - 1, Math.floor((size - start) / step));
    for (let row = first(top); row <= last(top, canvas.height, rows); row += 1) {
      for (let column = first(left); column <= last(left, canvas.width, columns); column += 1) {
        const bitmap = tile(picture, level, row * columns + column);
        if (!bitmap || to <= from) continue;
        // Each edge is rounded to whole px once, so that tiles join without a seam.
        const x = left + Math.round(column * step), y = top + Math.round(row * step);
        const x1 = column === columns - 1 ? right : left + Math.round((column + 1) * step);
        const y1 = row === rows - 1 ? bottom : top + Math.round((row + 1) * step);
        context.drawImage(bitmap, x, y, x1 - x, y1 - y);
      }
    }
  }
  context.restore();
}

// Update the controls. The stage also exposes its state as data-… attributes, for automated tests.
function tell() {
  const percent = (view.zoom / scene().shrunk) * 100;
  element("actual").querySelector("output").textContent = `${percent >= 10 ? Math.round(percent) : percent.toFixed(1)} %`;
  divider.style.setProperty("--at", `${view.split * 100}%`);
  divider.setAttribute("aria-valuenow", Math.round(view.split * 100));
  document.body.dataset.mode = view.mode;
  document.body.dataset.shown = view.mode === "flip" ? view.shown : "both";
  [view.left, view.right].map((picture) => scene().pictures[picture]).forEach(({ label, about }, side) => {
    const [name, words] = element("sides").children[side].children;
    [name.textContent, words.textContent] = [label, about];
  });
  element("left").value = view.left;
  element("right").value = view.right;
  element("scene").value = view.scene;
  const count = scene().places.length;
  element("place").hidden = count === 0;
  element("place").firstElementChild.textContent = view.place < 0 ? "Differences" : `${view.place + 1} of ${count}`;
  Object.assign(stage.dataset, { ...view, waiting });
}

// ----------------------------------------------------------------------------------------------------------- moving

const LADDER = [1 / 32, 1 / 24, 1 / 16, 1 / 12, 1 / 8, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32];
const MAX_ZOOM = 32;

// Small pictures are enlarged by integer factors, large ones are shrunk to fit.
function fitting() {
  const fit = Math.min(canvas.width / scene().width, canvas.height / scene().height);
  return fit >= 1 ? Math.min(Math.floor(fit), 8) : fit;
}

// Keep the picture in the window: an axis that fits is centred, one that does not has no empty border.
function hold() {
  const min = Math.min(fitting(), LADDER[0]);
  if (view.fitted) view.zoom = fitting();
  view.zoom = clamp(view.zoom, min, MAX_ZOOM);
  const inside = (at, length, window) => {
    const half = window / 2 / view.zoom;
    return half * 2 >= length ? length / 2 : clamp(at, half, length - half);
  };
  view.x = inside(view.x, scene().width, canvas.width);
  view.y = inside(view.y, scene().height, canvas.height);
}

// Zoom around a point of the stage (in CSS px), which stays in place.
function zoomTo(zoom, at = { x: stage.clientWidth / 2, y: stage.clientHeight / 2 }) {
  zoom = clamp(zoom, Math.min(fitting(), LADDER[0]), MAX_ZOOM);
  const dx = at.x * pixels() - canvas.width / 2, dy = at.y * pixels() - canvas.height / 2;
  view.x += dx / view.zoom - dx / zoom;
  view.y += dy / view.zoom - dy / zoom;
  Object.assign(view, { zoom, fitted: false });
  redraw();
}

function zoomBy(steps, at) {
  const stops = [...new Set([...LADDER, fitting()])].filter((stop) => stop >= fitting() || stop >= 1).sort((a, b) => a - b);
  let zoom = view.zoom;
  for (let i = Math.abs(steps); i > 0; i -= 1) {
    zoom = (steps > 0 ? stops.find((stop) => stop > zoom * 1.001) : stops.findLast((stop) => stop < zoom * 0.999)) ?? zoom;
  }
  zoomTo(zoom, at);
}

function fit() { view.fitted = true; redraw(); }

function pan(dx, dy) { // in CSS px
  view.x -= (dx * pixels()) / view.zoom;
  view.y -= (dy * pixels()) / view.zoom;
  redraw();
}

function goToPlace(step) {
  const places = scene().places;
  if (!places.length) return;
  view.place = view.place < 0 && step < 0 ? places.length - 1 : (view.place + step + places.length) % places.length;
  const [left, top, width, height] = places[view.place];
  const zoom = Math.max(1, Math.round(0.65 * Math.min(canvas.width / width, canvas.height / height)));
  Object.assign(view, { x: left + width / 2, y: top + height / 2, zoom: Math.min(zoom, 4), fitted: false });
  redraw();
}

function goToScene(number) {
  if (number < 0 || number >= data.scenes.length || number === view.scene) return;
  const labels = [view.left, view.right].map((picture) => scene().pictures[picture].label);
  Object.assign(view, { scene: number, place: -1, fitted: true });
  // Keep the selected labels where the next scene has them.
  [view.left, view.right] = labels.map((label, side) => {
    const found = scene().pictures.findIndex((picture) => picture.label === label);
    return found >= 0 ? found : Math.min(side, scene().pictures.length - 1);
  });
  list();
  redraw();
}

function choose(side, picture) {
  if (picture >= scene().pictures.length) return;
  view[side] = picture;
  if (view.mode === "flip") view.shown = side;
  redraw();
}

function flip() {
  view.shown = view.mode === "slider" || view.shown === "right" ? "left" : "right";
  view.mode = "flip";
  redraw();
}

function slider(split = view.split) {
  Object.assign(view, { mode: "slider", split: clamp(split, 0, 1) });
  redraw();
}

function swap() {
  [view.left, view.right] = [view.right, view.left];
  redraw();
}

// --------------------------------------------------------------------------------------------------- mouse and touch

const pointers = new Map();
let tapped = null; // place and time of the last tap, to detect double taps

const place = (event) => {
  const box = stage.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
};

stage.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  const onDivider = divider.contains(event.target);
  pointers.set(event.pointerId, { ...place(event), began: place(event), onDivider });
  stage.setPointerCapture(event.pointerId);
  (onDivider ? divider : stage).focus({ preventScroll: true, focusVisible: false });
  stage.classList.toggle("dragging", !onDivider);
  event.preventDefault();
});

stage.addEventListener("pointermove", (event) => {
  const pointer = pointers.get(event.pointerId);
  if (!pointer) return;
  const to = place(event), other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
  if (other) { // two fingers: their distance sets the zoom, their midpoint stays in place
    const apart = (a) => Math.hypot(a.x - other.x, a.y - other.y);
    pan((to.x - pointer.x) / 2, (to.y - pointer.y) / 2);
    zoomTo((view.zoom * Math.max(apart(to), 1)) / Math.max(apart(pointer), 1), { x: (to.x + other.x) / 2, y: (to.y + other.y) / 2 });
  } else if (pointer.onDivider) {
    slider(to.x / stage.clientWidth);
  } else {
    pan(to.x - pointer.x, to.y - pointer.y);
  }
  Object.assign(pointer, to);
});

function release(event) {
  const pointer = pointers.get(event.pointerId);
  if (!pointer) return;
  pointers.delete(event.pointerId);
  stage.classList.remove("dragging");
  const at = place(event), near = (a, b) => Math.hypot(a.x - b.x, a.y - b.y) < 20;
  if (event.type !== "pointerup" || pointer.onDivider || pointers.size || Math.hypot(at.x - pointer.began.x, at.y - pointer.began.y) > 6) {
    tapped = null;
  } else if (tapped && event.timeStamp - tapped.time < 350 && near(at, tapped)) {
    tapped = null;
    if (view.fitted || view.zoom < 1) zoomTo(Math.max(1, 2 * Math.floor(fitting())), at); else fit();
  } else {
    tapped = { ...at, time: event.timeStamp };
  }
}
stage.addEventListener("pointerup", release);
stage.addEventListener("pointercancel", release);

let wheeled = 0;
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const lines = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? 1 : 40;
  if (event.ctrlKey) { // a pinch on a touchpad
    zoomTo(view.zoom * Math.exp(-event.deltaY * lines / 100), place(event));
    return;
  }
  wheeled += (event.deltaY * lines) / 100;
  const steps = Math.trunc(wheeled);
  if (steps) zoomBy(-Math.sign(steps), place(event));
  wheeled -= steps;
}, { passive: false });

// --------------------------------------------------------------------------------------------------------- keyboard

function arrow(event, x, y) {
  if (event.shiftKey || document.activeElement === divider) slider(view.split + (x - y) * 0.02);
  else pan(-x * stage.clientWidth / 8, -y * stage.clientHeight / 8);
}

const KEYS = {
  ArrowLeft: (event) => arrow(event, -1, 0), ArrowRight: (event) => arrow(event, 1, 0),
  ArrowUp: (event) => arrow(event, 0, -1), ArrowDown: (event) => arrow(event, 0, 1),
  "+": () => zoomBy(1), "=": () => zoomBy(1), "-": () => zoomBy(-1), _: () => zoomBy(-1),
  0: fit, f: fit, Home: fit, a: () => zoomTo(1),
  " ": flip, Escape: () => slider(), s: () => slider(), x: swap,
  n: () => goToPlace(1), p: () => goToPlace(-1),
  "[": () => goToScene(view.scene - 1), "]": () => goToScene(view.scene + 1),
  PageUp: () => goToScene(view.scene - 1), PageDown: () => goToScene(view.scene + 1),
  "?": () => element("about").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || element("about").open || event.target.closest("select")) return;
  if (event.target.closest("button") && (event.key === " " || event.key === "Enter")) return;
  // Shift and a digit gives different characters on different keyboards; event.code does not. 0 is for fitting.
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code);
  const action = digit ? () => choose(event.shiftKey ? "right" : "left", digit[1] - 1) : KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action(event);
});

// --------------------------------------------------------------------------------------------------------- controls

const CLICKS = {
  out: () => zoomBy(-1), in: () => zoomBy(1), actual: () => zoomTo(1), fit, flip, swap,
  place: () => goToPlace(1), help: () => element("about").showModal(),
  close: () => element("about").close(), // not a form: `srgan serve` shows the page in a sandbox without forms
};
for (const [id, action] of Object.entries(CLICKS)) {
  element(id).addEventListener("click", (event) => {
    action();
    // After a click (not after Enter), drop the focus, so that space flips the pictures instead of pressing the button.
    if (event.detail && id !== "help") stage.focus({ focusVisible: false });
  });
}
for (const side of ["left", "right"]) {
  element(side).addEventListener("change", (event) => { choose(side, Number(event.target.value)); stage.focus({ focusVisible: false }); });
}
element("scene").addEventListener("change", (event) => { goToScene(Number(event.target.value)); stage.focus({ focusVisible: false }); });

function options(select, texts) { select.replaceChildren(...texts.map((text, i) => new Option(text, i))); }

// The choices of this scene, and its description.
function list() {
  const pictures = scene().pictures;
  for (const side of ["left", "right"]) options(element(side), pictures.map((picture, i) => `${i + 1}  ${picture.label}`));
  element("shown").replaceChildren(...pictures.flatMap(({ label, about }) => [["dt", label], ["dd", about]]).map(([kind, text]) =>
    Object.assign(document.createElement(kind), { textContent: text })));
}

options(element("scene"), data.scenes.map((one, i) => `${i + 1} of ${data.scenes.length}  ${one.name}`));
element("scene").hidden = data.scenes.length < 2;
[view.left, view.right] = data.pair;
list();
new ResizeObserver(() => {
  canvas.width = Math.max(1, Math.round(stage.clientWidth * pixels()));
  canvas.height = Math.max(1, Math.round(stage.clientHeight * pixels()));
  draw();
}).observe(stage);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
stage.focus({ focusVisible: false });
