"use strict";
// Each picture is a job: uploaded, followed by server-sent events, downloaded, and deleted when it leaves the list.
const element = (id) => document.getElementById(id);
const form = element("options"), list = element("pictures"), viewer = element("viewer");
const maxBytes = Number(document.body.dataset.maxBytes);
const AT_ONCE = Math.max(1, Math.min(3, Number(document.body.dataset.queue))); // browsers open at most six connections per server
// The server tells each job's state at least every ten seconds. Silence is counted in steps, since a laptop that slept
// must not count the hours of its sleep.
const STEP_S = 5, QUIET_STEPS = 4, SILENT_STEPS = 12;
const UNREACHABLE = "The server cannot be reached.";
const entries = [];
let active = 0;

const pause = (seconds) => new Promise((done) => { setTimeout(done, seconds * 1000); });
const megabytes = (bytes) => (bytes <= 999e3 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

// ---------------------------------------------------------------------------------------------------------- options

function asked() {
  const values = new FormData(form), words = new URLSearchParams();
  words.append("model", values.get("model"));
  words.append(...values.get("size").split("="));
  if (values.get("format")) words.append("format", values.get("format"));
  if (!element("quality").hidden) words.append("quality", values.get("quality"));
  for (const name of ["detail", "variation", "seed"])
    if (!element(name).hidden && values.get(name)) words.append(name, values.get(name));
  if (values.get("grain")) words.append("grain", values.get(values.get("grain") === "strength" ? "strength" : "grain"));
  if (values.get("strip")) words.append("strip", "gps");
  return words;
}

function tellOptions() {
  const chosen = form.elements.model.selectedOptions[0];
  element("about").textContent = chosen.dataset.about || "";
  element("detail").hidden = chosen.value !== "srgan";
  element("quality").hidden = !["jpeg", "webp", "avif"].includes(form.elements.format.value);
  const grain = form.elements.grain.value, draws = "noise" in chosen.dataset;
  element("variation").hidden = !draws;
  element("strength").hidden = grain !== "strength";
  element("seed").hidden = !draws && !grain; // the seed also changes the grain
  for (const name of ["quality", "detail", "variation", "strength"]) element(name).querySelector("output").textContent = form.elements[name].value;
  entries.forEach(offerAgain);
}
form.addEventListener("input", tellOptions);
form.addEventListener("submit", (event) => event.preventDefault());

// --------------------------------------------------------------------------------------------------------- pictures

function add(files) {
  for (const file of files) {
    const item = element("picture").content.firstElementChild.cloneNode(true);
    const entry = { file, item, words: null, state: "waiting", job: null, events: null, blob: null, address: null, cancel: null, gone: false };
    item.querySelector("h2").textContent = file.name;
    item.querySelector(".ending").textContent = file.name.split(".").pop().slice(0, 5);
    thumbnail(entry);
    item.querySelector(".compare").addEventListener("click", () => compare(entry));
    item.querySelector(".again").addEventListener("click", () => { begin(entry); item.querySelector(".remove").focus(); });
    item.querySelector(".remove").addEventListener("click", () => removeAt(entry));
    item.querySelector(".remove").setAttribute("aria-label", `Remove ${file.name}`);
    item.querySelector(".compare").setAttribute("aria-label", `Compare ${file.name} before and after`);
    item.querySelector(".download").setAttribute("aria-label", `Download the result of ${file.name}`);
    entries.push(entry);
    list.append(item);
    if (file.size > maxBytes) fail(entry, `The file has ${megabytes(file.size)}; this server accepts up to ${megabytes(maxBytes)}.`);
    else begin(entry);
  }
  tell();
}

function thumbnail(entry) {
  const image = entry.item.querySelector("img");
  entry.thumb = URL.createObjectURL(entry.file);
  image.addEventListener("load", () => { image.hidden = false; entry.item.querySelector(".ending").hidden = true; });
  image.src = entry.thumb; // if the browser cannot show it, the file extension stays
}

function begin(entry) {
  if (entry.job) forget(entry.job.id);
  if (entry.address) URL.revokeObjectURL(entry.address);
  Object.assign(entry, { job: null, blob: null, address: null, words: asked() });
  entry.options = String(entry.words);
  entry.words.append("name", entry.file.name);
  show(entry, "waiting", "Waiting");
  next();
}

function next() {
  for (const entry of entries) {
    if (active >= AT_ONCE) return;
    if (entry.state === "waiting") run(entry);
  }
}

async function run(entry) {
  active += 1;
  show(entry, "sending", "Sending…", 0);
  try {
    await send(entry);
    await watch(entry);
    if (!entry.gone) await fetchResult(entry);
  } catch (err) {
    if (!entry.gone) fail(entry, err.message);
  } finally {
    active -= 1;
    entry.cancel = null;
    tell();
    next();
  }
}

// Uploads a picture; retries while the server's queue is full.
async function send(entry) {
  for (;;) {
    const answer = await upload(entry);
    if (entry.gone) { if (answer.body.id) forget(answer.body.id); throw new Error("removed"); }
    if (answer.status === 202) { entry.job = answer.body; return; }
    if (answer.status !== 429) throw new Error(answer.body.detail || `The server answered ${answer.status}.`);
    show(entry, "sending", "The server is busy; waiting for room");
    await pause(answer.retry);
    if (entry.gone) throw new Error("removed");
  }
}

function upload(entry) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/v1/jobs?${entry.words}`);
    request.responseType = "json";
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", (event) => {
      if (entry.state === "sending" && event.lengthComputable) show(entry, "sending", "Sending…", event.loaded / event.total);
    });
    request.addEventListener("load", () => {
      if (request.status === 401) location.assign("/login");
      done({ status: request.status, body: request.response || {}, retry: Number(request.getResponseHeader("Retry-After")) || 2 });
    });
    request.addEventListener("error", () => failed(new Error(UNREACHABLE)));
    request.addEventListener("abort", () => failed(new Error("removed")));
    entry.cancel = () => request.abort();
    request.send(entry.file);
  });
}

function watch(entry) {
  return new Promise((done, failed) => {
    const events = new EventSource(entry.job.links.events);
    const tellSilence = () => show(entry, entry.state, "The server does not answer; trying again…");
    let silent = 0;
    const steps = setInterval(() => {
      silent += 1;
      if (silent >= SILENT_STEPS) end(failed, new Error(UNREACHABLE));
      else if (silent === QUIET_STEPS) tellSilence();
    }, STEP_S * 1000);
    const end = (action, value) => { clearInterval(steps); events.close(); entry.events = null; action(value); };
    entry.events = events;
    entry.cancel = () => end(failed, new Error("removed"));
    events.addEventListener("job", (event) => {
      const job = JSON.parse(event.data);
      entry.job = job;
      silent = 0;
      if (job.state === "queued") show(entry, "queued", job.position > 0 ? `In the queue, ${job.position} ahead` : "In the queue");
      else if (job.state === "running") show(entry, "running", job.fraction > 0 ? `Enlarging, ${Math.floor(job.fraction * 100)} %` : "Enlarging…", job.fraction);
      else if (job.state === "done") end(done);
      else end(failed, new Error(job.problem ? job.problem.detail : "It was cancelled."));
    });
    events.addEventListener("error", () => {
      if (events.readyState === EventSource.CLOSED) end(failed, new Error("The server no longer has this picture; try again."));
      else tellSilence(); // the browser connects again, and again
    });
  });
}

async function fetchResult(entry) {
  const { result, links } = entry.job;
  show(entry, "fetching", "Fetching the result…", 1);
  // The browser's own words for a broken connection ("Failed to fetch") help nobody.
  const answer = await fetch(links.result).catch(() => null);
  const blob = answer?.ok ? await answer.blob().catch(() => null) : null;
  if (!blob) throw new Error(answer ? "The result could not be fetched; try again." : UNREACHABLE);
  entry.blob = blob;
  if (entry.gone) return;
  entry.address = URL.createObjectURL(entry.blob);
  const facts = [`${result.width} × ${result.height} px`, megabytes(result.bytes), result.why === "asked for" ? result.model : `${result.model}: ${result.why}`, `${result.seconds.toFixed(1)} s`];
  show(entry, "done", [facts.join(" · "), ...result.notes].join(". "));
  for (const link of [entry.item.querySelector(".download")]) Object.assign(link, { href: entry.address, download: result.name });
}

function show(entry, state, words, fraction = null) {
  entry.state = state;
  const { item } = entry, bar = item.querySelector("progress"), done = state === "done";
  item.className = state;
  item.querySelector(".state").textContent = words;
  bar.hidden = fraction === null;
  bar.setAttribute("aria-label", `${entry.file.name}: ${words}`);
  if (fraction !== null) bar.value = fraction;
  item.querySelector(".compare").hidden = !done || !entry.job.links.compare; // there is none for huge results
  item.querySelector(".download").hidden = !done;
  offerAgain(entry);
  tell();
}

// Failed pictures can be tried again, and finished ones made again if the options have changed.
function offerAgain(entry) {
  const button = entry.item.querySelector(".again"), failed = entry.state === "failed";
  button.hidden = !failed && !(entry.state === "done" && entry.options !== String(asked()));
  button.textContent = failed ? "Try again" : "Make again";
}

function fail(entry, words) {
  if (entry.job) forget(entry.job.id);
  entry.job = null;
  show(entry, "failed", words);
}

function forget(id) {
  fetch(`/v1/jobs/${id}`, { method: "DELETE", keepalive: true }).catch(() => {});
}

function removeAt(entry) {
  const place = entries.indexOf(entry), focused = entry.item.contains(document.activeElement);
  entry.gone = true;
  if (entry.cancel) entry.cancel();
  if (entry.job) forget(entry.job.id);
  for (const address of [entry.thumb, entry.address]) if (address) URL.revokeObjectURL(address);
  entries.splice(place, 1);
  entry.item.remove();
  if (focused) (entries[Math.min(place, entries.length - 1)]?.item ?? element("choose")).focus();
  tell();
  next();
}

// The status line above the list, also announced to screen readers.
function tell() {
  const count = (...states) => entries.filter((entry) => states.includes(entry.state)).length;
  const done = count("done"), failed = count("failed"), busy = entries.length - done - failed;
  document.body.classList.toggle("busy", entries.length > 0);
  element("tools").hidden = entries.length === 0;
  element("zip").disabled = done === 0;
  const parts = [busy && `${busy} to do`, done && `${done} done`, failed && `${failed} failed`].filter(Boolean);
  const text = parts.join(", ");
  if (element("status").textContent !== text) element("status").textContent = text;
}

// -------------------------------------------------------------------------------------------------- before and after

async function compare(entry) {
  const { links } = entry.job;
  const answer = await fetch(links.self).catch(() => null);
  if (!answer) {
    show(entry, "done", UNREACHABLE);
    return;
  }
  if (!answer.ok) {
    show(entry, "done", "The server no longer holds this picture; send it again to compare.");
    entry.item.querySelector(".compare").hidden = true;
    return;
  }
  const frame = viewer.querySelector("iframe");
  viewer.querySelector("h2").textContent = entry.file.name;
  Object.assign(viewer.querySelector(".download"), { href: entry.address, download: entry.job.result.name });
  viewer.querySelector(".wait").hidden = false;
  frame.onload = () => { viewer.querySelector(".wait").hidden = true; frame.focus(); };
  frame.src = links.compare;
  viewer.showModal();
  viewer.onclose = () => {
    frame.onload = null;
    frame.removeAttribute("src");
    entry.item.querySelector(".compare").focus();
  };
}
viewer.querySelector(".close").addEventListener("click", () => viewer.close());

// ------------------------------------------------------------------------------------------------------------- zip

// Pictures are already compressed, so the archive stores them uncompressed (PKWARE's APPNOTE, 4.3).
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, number) => {
  let value = number;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value >>> 0;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ byte) & 0xff];
  return (crc ^ 0xffffffff) >>> 0;
}

function record(signature, fields) { // little-endian fields, each [bytes, value]
  const size = 4 + fields.reduce((sum, [bytes]) => sum + bytes, 0), view = new DataView(new ArrayBuffer(size));
  view.setUint32(0, signature, true);
  let at = 4;
  for (const [bytes, value] of fields) {
    if (bytes === 2) view.setUint16(at, value, true); else view.setUint32(at, value, true);
    at += bytes;
  }
  return view.buffer;
}

async function zipped(files) {
  const now = new Date(), parts = [], directory = [];
  const time = (now.getHours() << 11) | (now.getMinutes() << 5) | (now.getSeconds() >> 1);
  const day = ((now.getFullYear() - 1980) << 9) | ((now.getMonth() + 1) << 5) | now.getDate();
  let offset = 0, directorySize = 0;
  for (const { name, blob } of files) {
    const encoded = new TextEncoder().encode(name), crc = crc32(new Uint8Array(await blob.arrayBuffer()));
    const common = [[2, 20], [2, 0x0800], [2, 0], [2, time], [2, day], [4, crc], [4, blob.size], [4, blob.size], [2, encoded.length], [2, 0]];
    const head = record(0x04034b50, common);
    parts.push(head, encoded, blob);
    const entry = record(0x02014b50, [[2, 20], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]]);
    directory.push(entry, encoded);
    directorySize += entry.byteLength + encoded.length;
    offset += head.byteLength + encoded.length + blob.size;
    if (offset > 0xffffffff - 1e6) throw new Error("The results are too large for one zip file; download them one by one.");
  }
  const end = record(0x06054b50, [[2, 0], [2, 0], [2, files.length], [2, files.length], [4, directorySize], [4, offset], [2, 0]]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

function distinct(names) {
  const taken = new Set();
  return names.map((name) => {
    const dot = name.lastIndexOf("."), [stem, ending] = dot > 0 ? [name.slice(0, dot), name.slice(dot)] : [name, ""];
    let one = name;
    for (let number = 2; taken.has(one.toLowerCase()); number += 1) one = `${stem} (${number})${ending}`;
    taken.add(one.toLowerCase());
    return one;
  });
}

element("zip").addEventListener("click", async () => {
  const done = entries.filter((entry) => entry.state === "done");
  const names = distinct(done.map((entry) => entry.job.result.name));
  try {
    const blob = await zipped(done.map((entry, i) => ({ name: names[i], blob: entry.blob })));
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: "srgan.zip" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  } catch (err) {
    element("status").textContent = err.message;
  }
});

element("clear").addEventListener("click", () => { for (const entry of [...entries]) removeAt(entry); element("choose").focus(); });

// ------------------------------------------------------------------------------------------------- drop, paste, choose

element("choose").addEventListener("click", () => element("files").click());
element("files").addEventListener("change", (event) => { add([...event.target.files]); event.target.value = ""; });
addEventListener("paste", (event) => { if (event.clipboardData.files.length) add([...event.clipboardData.files]); });
for (const type of ["dragenter", "dragover"]) {
  addEventListener(type, (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    element("drop").classList.add("over");
  });
}
addEventListener("dragleave", (event) => { if (!event.relatedTarget) element("drop").classList.remove("over"); });
addEventListener("drop", async (event) => {
  event.preventDefault();
  element("drop").classList.remove("over");
  add(await dropped(event.dataTransfer));
});

// The dropped files, including those in dropped folders.
async function dropped(transfer) {
  const roots = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!roots.some((root) => root.isDirectory)) return [...transfer.files];
  const files = [];
  const walk = async (one) => {
    if (one.isFile) {
      const file = await new Promise((done, failed) => { one.file(done, failed); });
      if (!file.name.startsWith(".")) files.push(file);
      return;
    }
    const reader = one.createReader();
    for (;;) {
      const some = await new Promise((done, failed) => { reader.readEntries(done, failed); });
      if (!some.length) return;
      for (const each of some) await walk(each);
    }
  };
  for (const root of roots) await walk(root);
  return files;
}

// Delete the jobs that are still on the server: their results will not be downloaded.
addEventListener("pagehide", (event) => { if (!event.persisted) for (const entry of entries) if (entry.job) forget(entry.job.id); });
tellOptions();
