// Detects in a thread of its own, so that the page stays responsive. Messages: { id, ... } both ways.

import { hasWebGpu, Network } from "./network.js";
import { prepare, undo } from "./resize.js";

const root = new URL("../", import.meta.url);
let model = null;
let network = null;

/** on: "auto", "webgpu" or "wasm". WebGPU that does not work is replaced by WebAssembly if nobody insists on it. */
async function open({ on }) {
  model ??= await (await fetch(new URL("model.json", root))).json();
  const wanted = on === "auto" ? ((model.webgpu && (await hasWebGpu())) ? "webgpu" : "wasm") : on;
  try {
    network = await Network.open(root, model, wanted);
  } catch (error) {
    if (on !== "auto" || wanted === "wasm") throw error;
    network = await Network.open(root, model, "wasm");
  }
  return { on: network.on, threads: network.threads };
}

/** image: RGBA pixels. Returns what a server of fssd would answer. */
async function detect({ image }) {
  const start = performance.now();
  const input = prepare(model, image);
  const prepared = performance.now();
  const { boxes, scores, labels } = await network.run(input);
  const done = performance.now();
  const objects = scores.map((score, i) => ({
    name: model.classes[labels[i]].name,
    score,
    box: undo(model, boxes.slice(4 * i, 4 * i + 4), image.width, image.height),
  }));
  const milliseconds = { warp: prepared - start, network: done - prepared, total: done - start };
  return { width: image.width, height: image.height, objects, milliseconds };
}

addEventListener("message", async ({ data }) => {
  try {
    postMessage({ id: data.id, answer: await { open, detect }[data.task](data) });
  } catch (error) {
    postMessage({ id: data.id, error: error.message || String(error) });
  }
});
