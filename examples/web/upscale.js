// Runs an exported model on a picture, tile by tile. Opened with ?picture=cat.jpg, it takes that one.

const MODEL = "fast-x4.onnx";
const SCALE = 4; // `scale` and `halo_px` in the model's metadata
const HALO = 19; // how far a pixel sees: tiles with so much context join exactly
const TILE = 128; // px of the small picture

const GPU = "gpu" in navigator && (await navigator.gpu.requestAdapter()) !== null;
const runtime = GPU ? "ort.webgpu.bundle.min.mjs" : "ort.wasm.bundle.min.mjs";
const ort = await import(`./node_modules/onnxruntime-web/dist/${runtime}`);

const element = (id) => document.getElementById(id);
const say = (text) => { element("state").textContent = text; };

let session = null;

async function network() {
  session ??= await ort.InferenceSession.create(MODEL, { executionProviders: GPU ? ["webgpu", "wasm"] : ["wasm"] });
  return session;
}

/** RGBA bytes to (1, 3, height, width), fp32 in [0, 1]. */
function toTensor({ data, width, height }) {
  const size = width * height;
  const values = new Float32Array(3 * size);
  for (let i = 0; i < size; i += 1) {
    for (let channel = 0; channel < 3; channel += 1) values[channel * size + i] = data[4 * i + channel] / 255;
  }
  return new ort.Tensor("float32", values, [1, 3, height, width]);
}

/** And back. */
function toPicture({ data, dims: [, , height, width] }) {
  const size = width * height;
  const bytes = new Uint8ClampedArray(4 * size);
  for (let i = 0; i < size; i += 1) {
    for (let channel = 0; channel < 3; channel += 1) bytes[4 * i + channel] = 255 * data[channel * size + i];
    bytes[4 * i + 3] = 255;
  }
  return new ImageData(bytes, width, height);
}

/** Cores that partition the picture. */
function tiles(width, height) {
  const found = [];
  for (let y = 0; y < height; y += TILE) {
    for (let x = 0; x < width; x += TILE) {
      found.push({ x, y, width: Math.min(TILE, width - x), height: Math.min(TILE, height - y) });
    }
  }
  return found;
}

/** A tile with its context, clamped at the picture's borders; drawn without the context. */
async function upscaleTile(run, low, high, tile) {
  const left = Math.max(0, tile.x - HALO);
  const top = Math.max(0, tile.y - HALO);
  const right = Math.min(low.canvas.width, tile.x + tile.width + HALO);
  const bottom = Math.min(low.canvas.height, tile.y + tile.height + HALO);
  const input = toTensor(low.getImageData(left, top, right - left, bottom - top));
  const { output } = await run.run({ input });
  const [dx, dy] = [SCALE * (tile.x - left), SCALE * (tile.y - top)];
  high.putImageData(
    toPicture(output), SCALE * left, SCALE * top, dx, dy, SCALE * tile.width, SCALE * tile.height,
  );
}

async function upscale(blob) {
  const picture = await createImageBitmap(blob);
  const { width, height } = picture;
  const low = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  low.drawImage(picture, 0, 0);
  const canvas = element("result");
  [canvas.width, canvas.height] = [SCALE * width, SCALE * height];
  const high = canvas.getContext("2d");
  const [progress, save] = [element("progress"), element("save")];
  const work = tiles(width, height);
  [progress.hidden, save.hidden, progress.value, progress.max] = [false, true, 0, work.length];
  say("Loading the network …");
  const run = await network();
  const start = performance.now();
  for (const tile of work) {
    say(`Tile ${progress.value + 1} of ${work.length}`);
    await upscaleTile(run, low, high, tile);
    progress.value += 1;
  }
  const seconds = (performance.now() - start) / 1000;
  const large = await new Promise((done) => { canvas.toBlob(done, "image/png"); });
  [save.href, save.hidden, progress.hidden] = [URL.createObjectURL(large), false, true];
  say(`Done: ${canvas.width} × ${canvas.height} px in ${seconds.toFixed(1)} s, on the ${GPU ? "GPU" : "CPU"}.`);
}

async function guarded(blob) {
  try {
    await upscale(await blob);
  } catch (error) {
    say(`It did not work: ${error.message}`);
  }
}

element("picture").addEventListener("change", ({ target }) => { if (target.files[0]) guarded(target.files[0]); });

const asked = new URLSearchParams(location.search).get("picture");
if (asked !== null) {
  guarded(fetch(asked).then((answer) => {
    if (!answer.ok) throw new Error(`${asked} is not there`);
    return answer.blob();
  }));
}
