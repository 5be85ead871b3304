// The page around a detector: the user gives an image, `ask` detects its objects, boxes and list show them.

import { saveJson, savePicture } from "./save.js";
import { countByName, percent, View } from "./view.js";

export const LEAST = 0.05; // lowest score that is requested, so that the slider can show more objects
export const $ = (id) => document.getElementById(id);

export function complain(text, again = null) {
  $("problem-text").textContent = text;
  $("again").hidden = !again;
  $("again").onclick = again;
  $("problem").hidden = false;
}

export class App {
  /**
   * classes: rows of name and colour. least, score: the lowest and the first value of the slider. own: thresholds
   * by class name that hold until the slider is moved; classes without one take `score`. ask: (file, signal) to
   * { width, height, objects, milliseconds }, or an Error whose `again` offers another try. timing: those
   * milliseconds in words. refuse: (file, name) to the reason why an image is not tried, or null.
   */
  constructor({ classes, least, score, own = {}, ask, timing, refuse = () => null }) {
    Object.assign(this, { ask, timing, refuse });
    this.least = Math.max(Math.min(LEAST, ...Object.values(own)), least);
    this.current = null; // { file, name, answer }
    this.waiting = null; // AbortController of the current request
    const elements = { boxes: $("boxes"), list: $("list"), classes: $("classes"), histogram: $("histogram") };
    this.view = new View(elements, new Map(classes.map((row) => [row.name, row.colour])), (shown) => this.report(shown));
    this.introduce(classes, score);
    this.listen();
    this.view.filter($("threshold").value / 100, new Map(Object.entries(own)));
  }

  introduce(classes, score) {
    const least = Math.floor(100 * this.least);
    Object.assign($("threshold"), { min: least, value: Math.max(least, Math.round(100 * score)) });
    $("about").title = classes.map((row) => row.name).join(", ");
  }

  // ---- the state of the page

  show(state) {
    $("app").dataset.state = state;
    $("drop").hidden = state !== "empty";
    $("view").hidden = state === "empty";
    $("side").hidden = state !== "done";
    $("stage").setAttribute("aria-busy", String(state === "busy"));
  }

  report(shown) {
    const { name, answer } = this.current ?? {};
    $("count").textContent = shown.length === 1 ? "1 object" : `${shown.length} objects`;
    const limit = this.view.own.size ? "by class" : percent(this.view.threshold);
    $("threshold-value").textContent = limit;
    $("threshold").setAttribute("aria-valuetext", limit);
    $("none").hidden = shown.length > 0;
    $("none").textContent = answer?.objects.length ? "No object scores that high; lower the slider." : "No object was found in this image.";
    if (!answer) return;
    const counts = countByName(shown).map(([kind, count]) => `${kind} ${count}`).join(", ");
    $("image").alt = `${name}: ${counts || "no objects"}`;
    $("status").textContent = `${$("count").textContent} above ${this.view.own.size ? "the thresholds of their classes" : limit}${counts ? `: ${counts}` : ""}`;
  }

  // ---- detection in an image

  async look(file, name = file.name || "image") {
    this.waiting?.abort();
    $("problem").hidden = true;
    const reason = this.refuse(file, name);
    if (reason) {
      complain(reason);
      return;
    }
    const before = this.current;
    const stop = (this.waiting = new AbortController());
    $("status").textContent = `Detecting objects in ${name}`;
    try {
      const preview = await this.open(file, name);
      if (preview) this.show("busy");
      const answer = await this.ask(file, stop.signal);
      if (stop.signal.aborted) return;
      if (!preview) throw new Error("This browser cannot show the image; convert it to JPEG or PNG.");
      this.load(file, name, answer);
      this.show("done");
    } catch (error) {
      if (stop.signal.aborted) return;
      await this.back(before);
      complain(`${name}: ${error.message}`, error.again ? () => this.look(file, name) : null);
    }
  }

  load(file, name, answer) {
    this.current = { file, name, answer };
    $("file").textContent = `${name}, ${answer.width} × ${answer.height}`;
    $("timing").textContent = this.timing(answer.milliseconds);
    this.view.load(answer, this.least);
  }

  /** Show an image before its objects are known; false if the browser cannot show it. */
  async open(file, name) {
    const image = new Image();
    image.src = URL.createObjectURL(file);
    try {
      await image.decode();
    } catch {
      URL.revokeObjectURL(image.src);
      return false;
    }
    this.current = null;
    this.view.clear();
    URL.revokeObjectURL($("image").src);
    $("image").src = image.src;
    $("image").alt = name;
    $("file").textContent = name;
    $("view").style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
    return true;
  }

  /** After a failed image, show the previous one again. */
  async back(before) {
    if (!before) {
      this.show("empty");
      return;
    }
    await this.open(before.file, before.name);
    this.load(before.file, before.name, before.answer);
    this.show("done");
  }

  // ---- input: file, paste, drop

  listen() {
    for (const button of document.querySelectorAll("[data-pick]")) button.addEventListener("click", () => $("pick").click());
    for (const input of [$("pick"), $("shoot")]) {
      input.addEventListener("change", () => {
        if (input.files.length) this.look(input.files[0]);
        input.value = "";
      });
    }
    document.addEventListener("paste", (event) => this.take(event.clipboardData, "pasted"));
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
      this.take(event.dataTransfer, "dropped");
    });
    $("threshold").addEventListener("input", (event) => this.view.filter(event.target.value / 100, new Map()));
    $("names").addEventListener("click", () => {
      const bare = $("boxes").classList.toggle("bare");
      $("names").setAttribute("aria-pressed", String(!bare));
    });
    $("save-json").addEventListener("click", () => saveJson(this.current.name, this.current.answer, this.view.shown));
    $("save-picture").addEventListener("click", () => savePicture(this.current.name, $("image"), this.view.shown, this.view.colours));
  }

  take(transfer, verb) {
    const file = [...(transfer?.files ?? [])][0];
    if (file) this.look(file, file.name || `${verb} image`);
  }
}

/** "animals finds cat, dog and 6 more": a model and its classes in one line. */
export function introduction(model, classes) {
  const names = classes.map((row) => row.name);
  const some = names.length > 8 ? `${names.slice(0, 6).join(", ")} and ${names.length - 6} more` : names.join(", ");
  return `${model} finds ${some}`;
}
