// Pixels of a picture or a video frame, on white where they are transparent, as `fssd` reads files.

/** source: something that a canvas can draw. Returns { data: RGBA, width, height }. */
export function pixelsOf(source, width, height) {
  const pen = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  pen.fillStyle = "#ffffff";
  pen.fillRect(0, 0, width, height);
  pen.drawImage(source, 0, 0);
  return { data: pen.getImageData(0, 0, width, height).data, width, height };
}

/** Of a file, upright and with the numbers that the file holds. Raises an Error for what is no image. */
export async function readPixels(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Error("This is not an image that this browser can read; convert it to JPEG or PNG.");
  }
  const pixels = pixelsOf(bitmap, bitmap.width, bitmap.height);
  bitmap.close();
  return pixels;
}
