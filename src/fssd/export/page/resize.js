// An image as the network's input, pixel by pixel as `Geometry.apply` makes it: cv2.resize with INTER_LINEAR.

const BITS = 11; // of OpenCV's weights for 8-bit images
const ONE = 1 << BITS;

/** To the nearest integer, halves to the even one. */
function round(x) {
  const low = Math.floor(x);
  if (x - low !== 0.5) return Math.round(x);
  return low % 2 ? low + 1 : low;
}

/** For each of `to` output pixels: the two input pixels that it mixes, and their weights in units of 1/2048. */
function taps(from, to, keepEdges) {
  const scale = 1 / (to / from);
  const rows = { low: new Int32Array(to), high: new Int32Array(to), a: new Int32Array(to), b: new Int32Array(to) };
  for (let at = 0; at < to; at += 1) {
    const place = Math.fround((at + 0.5) * scale - 0.5);
    let left = Math.floor(place);
    let share = Math.fround(place - left);
    if (keepEdges && (left < 0 || left >= from - 1)) {
      left = left < 0 ? 0 : from - 1;
      share = 0;
    }
    rows.low[at] = Math.min(Math.max(left, 0), from - 1);
    rows.high[at] = Math.min(Math.max(left + 1, 0), from - 1);
    rows.a[at] = round(Math.fround(1 - share) * ONE);
    rows.b[at] = round(share * ONE);
  }
  return rows;
}

/** data: RGBA of width x height. Returns RGB of toWidth x toHeight, a Uint8Array. */
export function resize({ data, width, height }, toWidth, toHeight) {
  const out = new Uint8Array(3 * toWidth * toHeight);
  if (width === 2 * toWidth && height === 2 * toHeight) return halve(data, width, out);
  const xs = taps(width, toWidth, true);
  const ys = taps(height, toHeight, false);
  const kept = new Map(); // input rows, scaled horizontally
  const scaled = (y) => {
    if (!kept.has(y)) kept.set(y, horizontal(data, 4 * width * y, xs, toWidth));
    return kept.get(y);
  };
  for (let row = 0; row < toHeight; row += 1) {
    for (const y of kept.keys()) if (y < ys.low[row]) kept.delete(y);
    const above = scaled(ys.low[row]);
    const below = scaled(ys.high[row]);
    const [a, b] = [ys.a[row], ys.b[row]];
    const start = 3 * toWidth * row;
    for (let i = 0; i < 3 * toWidth; i += 1) {
      out[start + i] = (((a * (above[i] >> 4)) >> 16) + ((b * (below[i] >> 4)) >> 16) + 2) >> 2;
    }
  }
  return out;
}

function horizontal(data, start, { low, high, a, b }, toWidth) {
  const line = new Int32Array(3 * toWidth);
  for (let at = 0; at < toWidth; at += 1) {
    const [left, right] = [start + 4 * low[at], start + 4 * high[at]];
    for (let c = 0; c < 3; c += 1) line[3 * at + c] = data[left + c] * a[at] + data[right + c] * b[at];
  }
  return line;
}

/** OpenCV halves by the mean of four pixels. */
function halve(data, width, out) {
  for (let i = 0, at = 0; i < out.length; i += 3, at += 8) {
    if (i && (i / 3) % (width / 2) === 0) at += 4 * width;
    for (let c = 0; c < 3; c += 1) {
      out[i + c] = (data[at + c] + data[at + 4 + c] + data[at + 4 * width + c] + data[at + 4 * width + 4 + c] + 2) >> 2;
    }
  }
  return out;
}

/** The part of the input that an image fills, [left, top, width, height]: `Geometry.window`. */
export function placement({ geometry, size }, width, height) {
  if (geometry === "warp") return [0, 0, ...size];
  const scale = Math.min(size[0] / width, size[1] / height);
  const sides = [width, height].map((side) => Math.max(1, round(side * scale)));
  return [Math.floor((size[0] - sides[0]) / 2), Math.floor((size[1] - sides[1]) / 2), ...sides];
}

/** The network's input, RGB: the image in its window, and model.fill around it. image: RGBA pixels. */
export function prepare(model, image) {
  const [left, top, width, height] = placement(model, image.width, image.height);
  const resized = resize(image, width, height);
  if (width === model.size[0] && height === model.size[1]) return resized;
  const out = new Uint8Array(3 * model.size[0] * model.size[1]);
  for (let i = 0; i < out.length; i += 1) out[i] = model.fill[i % 3];
  for (let row = 0; row < height; row += 1) {
    out.set(resized.subarray(3 * width * row, 3 * width * (row + 1)), 3 * (model.size[0] * (top + row) + left));
  }
  return out;
}

/** A box in pixels of the input as one in pixels of the image, clipped to it: `Geometry.undo`. */
export function undo(model, box, width, height) {
  const [left, top, inWidth, inHeight] = placement(model, width, height);
  const clip = (value, most) => Math.min(Math.max(value, 0), most);
  return [0, 1, 2, 3].map((i) =>
    i % 2 ? clip(((box[i] - top) * height) / inHeight, height) : clip(((box[i] - left) * width) / inWidth, width),
  );
}
