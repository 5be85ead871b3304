// The live camera: frame after frame is detected, the newest first; a stopped film leaves its last frame as a picture.

import { pixelsOf } from "./pixels.js";

export class Live {
  /** video: the element. detect: pixels to an answer. show: called with each answer. */
  constructor(video, detect, show) {
    Object.assign(this, { video, detect, show, stream: null });
  }

  get running() {
    return this.stream !== null;
  }

  /** Raises an Error in words for people if there is no camera. */
  async start() {
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
    } catch (error) {
      throw new Error(error.name === "NotAllowedError" ? "The camera was not allowed; choose an image instead." : "No camera was found; choose an image instead.");
    }
    this.video.srcObject = this.stream;
    await this.video.play();
    this.follow();
  }

  async follow() {
    const { video, stream } = this;
    let last = performance.now();
    while (this.stream === stream) {
      const answer = await this.detect(pixelsOf(video, video.videoWidth, video.videoHeight));
      if (this.stream !== stream) return;
      const now = performance.now();
      answer.milliseconds.between = now - last;
      last = now;
      this.show(answer);
      await new Promise((done) => requestAnimationFrame(done));
    }
  }

  /** End the film. Returns its last frame as a JPEG file. */
  async stop() {
    const { video } = this;
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    canvas.getContext("2d").drawImage(video, 0, 0);
    this.end();
    return new File([await canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 })], "camera.jpg", { type: "image/jpeg" });
  }

  end() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = this.video.srcObject = null;
  }
}
