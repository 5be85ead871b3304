import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";

const [model, image] = await Promise.all(process.argv.slice(2).map((name) => readFile(name)));
const side = Math.sqrt(image.length / 3); // of a square input
const session = await ort.InferenceSession.create(new Uint8Array(model));
const images = new ort.Tensor("uint8", new Uint8Array(image), [1, side, side, 3]);
const { boxes, scores, labels, count } = await session.run({ images });
for (let i = 0; i < Number(count.data[0]); i += 1) {
  const box = Array.from(boxes.data.subarray(4 * i, 4 * i + 4), (value) => value.toFixed(1));
  console.log(Number(labels.data[i]), scores.data[i].toFixed(3), ...box);
}
