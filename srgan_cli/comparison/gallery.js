"use strict";
// Opens a slider over two pictures for a clicked thumbnail. Without JavaScript a thumbnail opens the picture.
const links = [...document.querySelectorAll("main a")];
const dialog = document.querySelector("dialog");
const stage = document.getElementById("stage");
const [before, after] = ["before", "after"].map((id) => document.getElementById(id));
const slider = document.querySelector("input");
const caption = document.querySelector("output");
let shown = -1;
let actual = false;

function place() {
  const width = Number(links[shown].dataset.width);
  const height = Number(links[shown].dataset.height);
  const fit = Math.min(stage.clientWidth / width, stage.clientHeight / height);
  const scale = actual ? 1 / devicePixelRatio : fit;
  stage.classList.toggle("actual", actual);
  stage.style.setProperty("--w", `${width * scale}px`);
  stage.style.setProperty("--h", `${height * scale}px`);
  document.getElementById("zoom").textContent = actual ? "Fit" : "1:1";
}

function show(index) {
  shown = (index + links.length) % links.length;
  const link = links[shown];
  caption.textContent = link.title;
  after.src = link.href;
  before.src = link.dataset.before;
  if (!dialog.open) dialog.showModal();
  place();
}

function slide() {
  before.style.setProperty("--at", `${slider.value / 10}%`);
}

for (const image of [before, after]) {
  image.addEventListener("error", () => {
    if (shown < 0) return;
    const address = image.getAttribute("src");
    let path = address;
    try { path = decodeURIComponent(address); } catch { /* a name that is not UTF-8 */ }
    caption.textContent = `${path} no longer exists`;
  });
}
links.forEach((link, index) => link.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  show(index);
}));
slider.addEventListener("input", slide);
stage.addEventListener("pointermove", (event) => {
  if (event.pointerType !== "mouse" && !event.buttons) return;
  const box = before.getBoundingClientRect();
  slider.value = Math.round(1000 * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
  slide();
});
document.getElementById("zoom").addEventListener("click", () => { actual = !actual; place(); });
document.getElementById("previous").addEventListener("click", () => show(shown - 1));
document.getElementById("next").addEventListener("click", () => show(shown + 1));
document.getElementById("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => { if (shown >= 0) links[shown].focus(); });
dialog.addEventListener("keydown", (event) => {
  if (event.target === slider && event.key.startsWith("Arrow")) return;
  if (event.key === "ArrowLeft") show(shown - 1);
  else if (event.key === "ArrowRight") show(shown + 1);
  else if (event.key === " " && event.target.tagName !== "BUTTON") { actual = !actual; place(); event.preventDefault(); }
});
addEventListener("resize", () => { if (dialog.open) place(); });
slide();
