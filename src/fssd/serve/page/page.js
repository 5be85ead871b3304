// The page: the user gives an image, the server detects its objects, boxes and list show them.

import { useCamera } from "./camera.js";
import { saveJson, savePicture } from "./save.js";
import { countByName, make, percent, View } from "./view.js";

const LEAST = 0.05; // lowest score that is requested, so that the slider can show more objects
const TRIES = 5; // while the server says that it is busy
const $ = (id) => document.getElementById(id);

let model = null;
let view = null;
let current = null; // { file, name, answer }
let waiting = null; // AbortController of the current request

// ---- the state of the page

function show(state) {
  $("app").dataset.state = state;
  $("drop").hidden = state !== "empty";
  $("view").hidden = state === "empty";
  $("side").hidden = state !== "done";
  $("stage").setAttribute("aria-busy", String(state === "busy"));
}

function complain(text, again = null) {
  $("problem-text").textContent = text;
  $("again").hidden = !again;
  $("again").onclick = again;
  $("problem").hidden = false;
}

function report(shown) {
  const { name, answer } = current ?? {};
  $("count").textContent = shown.length === 1 ? "1 object" : `${shown.length} objects`;
  $("threshold-value").textContent = percent(view.threshold);
  $("threshold").setAttribute("aria-valuetext", percent(view.threshold));
  $("none").hidden = shown.length > 0;
  $("none").textContent = answer?.objects.length ? "No object scores that high; lower the slider." : "No object was found in this image.";
  if (!answer) return;
  const counts = countByName(shown).map(([kind, count]) => `${kind} ${count}`).join(", ");
  $("image").alt = `${name}: ${counts || "no objects"}`;
  $("status").textContent = `${$("count").textContent} above ${percent(view.threshold)}${counts ? `: ${counts}` : ""}`;
}

// ---- detection in an image

async function look(file, name = file.name || "image") {
  waiting?.abort();
  $("problem").hidden = true;
  const most = model.limits.body_bytes;
  if (file.size > most) {
    complain(`${name} has ${(file.size / 1e6).toFixed(1)} MB; the server accepts at most ${most / 1e6} MB.`);
    return;
  }
  const before = current;
  const stop = (waiting = new AbortController());
  $("status").textContent = `Detecting objects in ${name}`;
  try {
    const preview = await open(file, name);
    if (preview) show("busy");
    const answer = await ask(file, stop.signal);
    if (!preview) throw new Error("This browser cannot show the image; convert it to JPEG or PNG.");
    current = { file, name, answer };
    $("file").textContent = `${name}, ${answer.width} × ${answer.height}`;
    $("timing").textContent = timing(answer.milliseconds);
    view.load(answer, leastScore());
    show("done");
  } catch (error) {
    if (stop.signal.aborted) return;
    await back(before);
    complain(`${name}: ${error.message}`, error.again ? () => look(file, name) : null);
  }
}

/** Show an image before its objects are known; false if the browser cannot show it. */
async function open(file, name) {
  const image = new Image();
  image.src = URL.createObjectURL(file);
  try {
    await image.decode();
  } catch {
    URL.revokeObjectURL(image.src);
    return false;
  }
  current = null;
  view.clear();
  URL.revokeObjectURL($("image").src);
  $("image").src = image.src;
  $("image").alt = name;
  $("file").textContent = name;
  $("view").style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
  return true;
}

/** After a failed image, show the previous one again. */
async function back(before) {
  if (!before) {
    show("empty");
    return;
  }
  await open(before.file, before.name);
  current = before;
  $("file").textContent = `${before.name}, ${before.answer.width} × ${before.answer.height}`;
  view.load(before.answer, leastScore());
  show("done");
}

async function ask(file, signal) {
  const address = `detect?score=${leastScore()}&max=${model.max}`;
  for (let tries = 1; ; tries += 1) {
    let response;
    try {
      response = await fetch(address, { method: "POST", body: file, headers: { Accept: "application/json" }, signal });
    } catch (error) {
      if (signal.aborted) throw error;
      throw Object.assign(new Error("The server cannot be reached."), { again: true });
    }
    if (response.ok) return response.json();
    if (response.status === 503 && tries < TRIES) {
      await new Promise((done) => setTimeout(done, 1000 * Number(response.headers.get("Retry-After") ?? 1)));
      continue;
    }
    const { error } = await response.json();
    throw Object.assign(new Error(error.message), { again: response.status >= 500 });
  }
}

const leastScore = () => Math.max(LEAST, model.least_score);

function timing(times) {
  const parts = [["network", times.network], ["decoding", times.decode + times.warp], ["waiting", times.wait]];
  const text = parts.map(([name, value]) => `${name} ${value.toFixed(0)}`).join(", ");
  return `${times.total.toFixed(0)} ms in total: ${text}`;
}

// ---- input: file, paste, drop, camera

function listen() {
  for (const button of document.querySelectorAll("[data-pick]")) button.addEventListener("click", () => $("pick").click());
  for (const input of [$("pick"), $("shoot")]) {
    input.addEventListener("change", () => {
      if (input.files.length) look(input.files[0]);
      input.value = "";
    });
  }
  document.addEventListener("paste", (event) => take(event.clipboardData, "pasted"));
  let depth = 0; // elements that the drag has entered and not left
  const dragging = (event, change) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    depth = change(depth);
    $("veil").classList.toggle("on", depth > 0);
  };
  addEventListener("dragenter", (event) => dragging(event, (old) => old + 1));
  addEventListener("dragleave", (event) => dragging(event, (old) => old - 1));
  addEventListener("dragover", (event) => dragging(event, (old) => old));
  addEventListener("drop", (event) => {
    dragging(event, () => 0);
    take(event.dataTransfer, "dropped");
  });
  const parts = { dialog: $("camera"), video: $("video"), snap: $("snap"), close: $("camera-close"), shoot: $("shoot") };
  const camera = useCamera(parts, look, complain);
  for (const button of document.querySelectorAll("[data-camera]")) button.addEventListener("click", camera);

  $("threshold").addEventListener("input", (event) => view.filter(event.target.value / 100));
  $("names").addEventListener("click", () => {
    const bare = $("boxes").classList.toggle("bare");
    $("names").setAttribute("aria-pressed", String(!bare));
  });
  $("save-json").addEventListener("click", () => saveJson(current.name, current.answer, view.shown));
  $("save-picture").addEventListener("click", () => savePicture(current.name, $("image"), view.shown, view.colours));
}

function take(transfer, verb) {
  const file = [...(transfer?.files ?? [])][0];
  if (file) look(file, file.name || `${verb} image`);
}

function offerSamples(names) {
  for (const name of names) {
    const button = make("button", "sample");
    button.type = "button";
    const picture = make("img");
    picture.src = `assets/${name}`;
    picture.alt = `Try ${name}`;
    button.append(picture);
    button.addEventListener("click", async () => look(await (await fetch(picture.src)).blob(), name));
    $("samples").append(button);
  }
  $("samples").hidden = names.length === 0;
}

function introduce() {
  const classes = model.classes.map((row) => row.name);
  const some = classes.length > 8 ? `${classes.slice(0, 6).join(", ")} and ${classes.length - 6} more` : classes.join(", ");
  $("about").textContent = `${model.model} finds ${some}`;
  $("about").title = classes.join(", ");
  const { body_bytes: bytes, pixels } = model.limits;
  $("limits").textContent = `JPEG, PNG, WebP or BMP, up to ${bytes / 1e6} MB and ${pixels / 1e6} megapixels`;
  const least = Math.round(100 * leastScore());
  Object.assign($("threshold"), { min: least, value: Math.max(least, Math.round(100 * model.score)) });
}

async function start() {
  try {
    model = await (await fetch("model")).json();
  } catch {
    complain("The server cannot be reached.", () => location.reload());
    return;
  }
  const elements = { boxes: $("boxes"), list: $("list"), classes: $("classes"), histogram: $("histogram") };
  view = new View(elements, new Map(model.classes.map((row) => [row.name, row.colour])), report);
  introduce();
  offerSamples(model.samples);
  listen();
  view.filter($("threshold").value / 100);
}

start();
