// Downloads: the objects as JSON, or the image with their boxes drawn on it.

import { inkOn, percent } from "./view.js";

function offer(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const stem = (name) => name.replace(/\.[^.]*$/, "") || "image";

/** The objects of one image, in the format that `fssd detect` writes. */
export function saveJson(name, { width, height }, objects) {
  const rows = [{ image: name, width, height, objects }];
  offer(new Blob([JSON.stringify(rows, null, 1), "\n"], { type: "application/json" }), `${stem(name)}.json`);
}

/** The image at its own size; the best scores are drawn last. colours: "#rrggbb" by class name. */
export async function savePicture(name, image, objects, colours) {
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0);
  const side = canvas.width + canvas.height;
  const line = Math.max(1, Math.round(0.003 * side));
  const size = Math.max(10, Math.round(0.013 * side));
  pen.lineWidth = line;
  pen.font = `600 ${size}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  const worstFirst = [...objects].reverse();
  for (const { name: kind, box } of worstFirst) {
    pen.strokeStyle = colours.get(kind) ?? "#0072b2";
    pen.strokeRect(box[0], box[1], box[2] - box[0], box[3] - box[1]);
  }
  for (const object of worstFirst) drawLabel(pen, object, colours.get(object.name) ?? "#0072b2", size, line, canvas);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  offer(blob, `${stem(name)}-objects.png`);
}

function drawLabel(pen, { name, score, box }, colour, size, line, canvas) {
  const text = `${name} ${percent(score)}`;
  const width = pen.measureText(text).width + size * 0.8;
  const height = size * 1.5;
  const left = Math.max(0, Math.min(box[0] - line / 2, canvas.width - width));
  const top = box[1] >= height ? box[1] - height : Math.min(box[1], canvas.height - height);
  pen.fillStyle = colour;
  pen.fillRect(left, top, width, height);
  pen.fillStyle = inkOn(colour);
  pen.fillText(text, left + size * 0.4, top + height / 2);
}
