// The exported network in ONNX Runtime Web: WebGPU or WebAssembly, with as many threads as the page may have.

const MOST_THREADS = 8;

/** Whether the browser offers WebGPU and has an adapter for it. */
export async function hasWebGpu() {
  try {
    return Boolean(await navigator.gpu?.requestAdapter());
  } catch {
    return false;
  }
}

export class Network {
  /** root: URL of the site. model: its model.json. on: "webgpu" or "wasm". */
  static async open(root, model, on) {
    const build = on === "webgpu" ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs";
    const ort = await import(new URL(`ort/${build}`, root).href);
    const threads = globalThis.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1) : 1;
    Object.assign(ort.env.wasm, { wasmPaths: new URL("ort/", root).href, numThreads: threads });
    ort.env.logLevel = "error";
    const content = new Uint8Array(await (await fetch(new URL("model.onnx", root))).arrayBuffer());
    const session = await ort.InferenceSession.create(content, { executionProviders: on === "webgpu" ? ["webgpu", "wasm"] : ["wasm"] });
    const network = new Network(ort, session, model, on, threads);
    const [width, height] = model.size;
    await network.run(new Uint8Array(3 * width * height)); // the first run prepares kernels, and may fail
    return network;
  }

  constructor(ort, session, model, on, threads) {
    Object.assign(this, { ort, session, model, on, threads });
  }

  /** pixels: RGB of the network's size. Returns boxes (4 numbers each, pixels of the input), scores and labels. */
  async run(pixels) {
    const [width, height] = this.model.size;
    const images = new this.ort.Tensor("uint8", pixels, [1, height, width, 3]);
    const { boxes, scores, labels, count } = await this.session.run({ images });
    const number = Number(count.data[0]);
    return {
      boxes: Array.from(boxes.data.subarray(0, 4 * number)),
      scores: Array.from(scores.data.subarray(0, number)),
      labels: Array.from(labels.data.subarray(0, number), Number),
    };
  }
}
