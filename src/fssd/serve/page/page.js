// The page of a server: it sends the image that the user gives to /detect.

import { $, App, complain, introduction } from "./app.js";
import { useCamera } from "./camera.js";
import { make } from "./view.js";

const TRIES = 5; // while the server says that it is busy

let model = null;
let app = null;

async function ask(file, signal) {
  const address = `detect?score=${app.least}&max=${model.max}`;
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

function refuse(file, name) {
  const most = model.limits.body_bytes;
  return file.size > most ? `${name} has ${(file.size / 1e6).toFixed(1)} MB; the server accepts at most ${most / 1e6} MB.` : null;
}

function timing(times) {
  const parts = [["network", times.network], ["decoding", times.decode + times.warp], ["waiting", times.wait]];
  const text = parts.map(([name, value]) => `${name} ${value.toFixed(0)}`).join(", ");
  return `${times.total.toFixed(0)} ms in total: ${text}`;
}

function offerSamples(names) {
  for (const name of names) {
    const button = make("button", "sample");
    button.type = "button";
    const picture = make("img");
    picture.src = `assets/${name}`;
    picture.alt = `Try ${name}`;
    button.append(picture);
    button.addEventListener("click", async () => app.look(await (await fetch(picture.src)).blob(), name));
    $("samples").append(button);
  }
  $("samples").hidden = names.length === 0;
}

async function start() {
  try {
    model = await (await fetch("model")).json();
  } catch {
    complain("The server cannot be reached.", () => location.reload());
    return;
  }
  $("about").textContent = introduction(model.model, model.classes);
  const { body_bytes: bytes, pixels } = model.limits;
  $("limits").textContent = `JPEG, PNG, WebP or BMP, up to ${bytes / 1e6} MB and ${pixels / 1e6} megapixels`;
  offerSamples(model.samples);
  const scores = { least: model.least_score, score: model.score, own: model.class_scores };
  app = new App({ classes: model.classes, ...scores, ask, timing, refuse });
  const parts = { dialog: $("camera"), video: $("video"), snap: $("snap"), close: $("camera-close"), shoot: $("shoot") };
  const camera = useCamera(parts, (file) => app.look(file), complain);
  for (const button of document.querySelectorAll("[data-camera]")) button.addEventListener("click", camera);
}

start();
