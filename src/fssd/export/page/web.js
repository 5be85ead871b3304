// The page without a server: the model runs in the browser, and images stay on the device.

import { $, App, complain, introduction } from "./app.js";
import { Live } from "./live.js";
import { readPixels } from "./pixels.js";

const NAMES = { webgpu: "WebGPU", wasm: "WebAssembly" };
const CHOSEN = "fssd-device";

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let number = 0;
let device = null; // { on, threads }

worker.addEventListener("message", ({ data: { id, answer, error } }) => {
  const { done, fail } = waiting.get(id);
  waiting.delete(id);
  if (error === undefined) done(answer);
  else fail(new Error(error));
});

function ask(task, values, transfer = []) {
  number += 1;
  return new Promise((done, fail) => {
    waiting.set(number, { done, fail });
    worker.postMessage({ id: number, task, ...values }, transfer);
  });
}

const detect = (image) => ask("detect", { image }, [image.data.buffer]);

function timing({ warp, network, between }) {
  const threads = device.on === "wasm" ? `, ${device.threads} ${device.threads === 1 ? "thread" : "threads"}` : "";
  const pace = between ? `${(1000 / between).toFixed(1)} frames a second; ` : "";
  return `${pace}network ${network.toFixed(0)} ms, scaling ${warp.toFixed(0)} ms (${NAMES[device.on]}${threads})`;
}

/** Let the service worker keep the site for use without a network, and reload once if that gives it threads. */
async function keep() {
  if (!("serviceWorker" in navigator)) return;
  try {
    await navigator.serviceWorker.register("sw.js");
    await navigator.serviceWorker.ready;
  } catch {
    return; // a browser that forbids it, as in a private window, loads the site each time
  }
  if (crossOriginIsolated && navigator.serviceWorker.controller) return;
  try {
    if (sessionStorage.getItem("fssd-reloaded")) return;
    sessionStorage.setItem("fssd-reloaded", "1");
  } catch {
    return;
  }
  location.reload();
  await new Promise(() => {}); // nothing more before the reload
}

async function open(on) {
  $("device").disabled = true;
  try {
    device = await ask("open", { on });
    $("device").value = device.on;
  } finally {
    $("device").disabled = false;
  }
}

async function chooseDevice(app) {
  const before = device.on;
  try {
    await open($("device").value);
    localStorage.setItem(CHOSEN, device.on);
  } catch (error) {
    complain(`${NAMES[$("device").value]} does not work here: ${error.message}`);
    await open(before);
  }
  const { file, name } = app.current ?? {};
  if (file) app.look(file, name);
}

function useLive(app) {
  const show = (answer) => app.load(null, "camera", answer);
  const live = new Live($("live"), detect, show);
  const state = (on) => {
    $("view").classList.toggle("filming", on);
    for (const button of document.querySelectorAll("[data-camera] span")) button.textContent = on ? "Stop" : "Camera";
  };
  async function toggle() {
    if (live.running) {
      const frame = await live.stop();
      state(false);
      app.look(frame);
      return;
    }
    if (!navigator.mediaDevices?.getUserMedia) {
      $("shoot").click(); // browsers allow the live camera on localhost and over HTTPS only
      return;
    }
    try {
      await live.start();
    } catch (error) {
      complain(error.message);
      return;
    }
    $("problem").hidden = true;
    const { videoWidth: width, videoHeight: height } = $("live");
    $("view").style.setProperty("--ratio", width / height);
    state(true);
    app.show("done");
  }
  for (const button of document.querySelectorAll("[data-camera]")) button.addEventListener("click", toggle);
  return () => {
    live.end();
    state(false);
  };
}

async function start() {
  await keep();
  let model;
  try {
    model = await (await fetch("model.json")).json();
    $("about").textContent = introduction(model.model, model.classes);
    $("limits").textContent = "Loading the model";
    for (const option of $("device").options) option.disabled = option.value === "webgpu" && !(model.webgpu && navigator.gpu);
    await open(localStorage.getItem(CHOSEN) ?? "auto");
  } catch (error) {
    complain(`The model cannot be loaded: ${error.message}`, () => location.reload());
    return;
  }
  let endFilm = () => {};
  const app = new App({
    classes: model.classes,
    least: model.least_score,
    score: model.score,
    own: model.class_scores,
    timing,
    ask: async (file) => {
      endFilm();
      return detect(await readPixels(file));
    },
  });
  endFilm = useLive(app);
  $("device").addEventListener("change", () => chooseDevice(app));
  $("limits").textContent = "The model runs in this browser; images stay on this device.";
  document.documentElement.dataset.ready = "true";
}

start();
