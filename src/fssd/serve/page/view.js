// The boxes on the image and the list beside it: two views of the same objects, highlighted together.

const BINS = 40;

/** Black or white, whichever is easier to read on a colour "#rrggbb" (luma of ITU-R BT.601). */
export function inkOn(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#000000" : "#ffffff";
}

export const percent = (score) => `${Math.round(100 * score)} %`;

export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

/** Pairs [name, count], shown as "cat 3, dog 1": the plural of a class name is not known. */
export function countByName(objects) {
  const counts = new Map();
  for (const { name } of objects) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]);
}

export class View {
  /** elements: boxes, list, classes, histogram. colours: "#rrggbb" by class name. */
  constructor(elements, colours, onChange) {
    this.elements = elements;
    this.colours = colours;
    this.onChange = onChange;
    this.hidden = new Set(); // class names
    this.threshold = 0.5;
    this.own = new Map(); // thresholds by class name, in place of the one for all
    this.items = [];
    this.lit = null;
    this.pinned = null;
    this.listen();
  }

  /** Objects that are shown now, best first. */
  get shown() {
    return this.items.filter((item) => item.shown).map((item) => item.object);
  }

  /** Show an answer of the server. least: the lowest score that was requested. */
  load({ width, height, objects }, least) {
    this.lit = this.pinned = null;
    this.hidden.clear();
    this.items = objects.map((object, index) => this.item(object, index, width, height));
    // Small boxes lie above large ones, so that the pointer can reach each of them.
    const area = ({ object: { box } }) => (box[2] - box[0]) * (box[3] - box[1]);
    const bySize = [...this.items].sort((a, b) => area(b) - area(a));
    this.elements.boxes.replaceChildren(...bySize.map((item) => item.box));
    this.elements.list.replaceChildren(...this.items.map((item) => item.row));
    this.drawHistogram(objects, least);
    this.filter();
  }

  clear() {
    this.load({ width: 1, height: 1, objects: [] }, 0);
  }

  /** Show the objects above the threshold, or that of their class in `own`, whose class is not hidden. */
  filter(threshold = this.threshold, own = this.own) {
    Object.assign(this, { threshold, own });
    for (const item of this.items) {
      item.scores = item.object.score > (own.get(item.object.name) ?? threshold);
      item.shown = item.scores && !this.hidden.has(item.object.name);
      item.box.hidden = item.row.hidden = !item.shown;
    }
    const lowest = Math.min(threshold, ...own.values());
    for (const bar of this.elements.histogram.children) bar.classList.toggle("out", Number(bar.dataset.from) < lowest);
    if (this.lit && !this.lit.shown) this.light(null);
    this.drawClasses();
    this.rove(this.items.find((item) => item.shown));
    this.onChange(this.shown);
  }

  item(object, index, width, height) {
    const { name, score, box } = object;
    const colour = this.colours.get(name) ?? "#0072b2";
    const rectangle = make("div", "box");
    const style = rectangle.style;
    style.left = `${(100 * box[0]) / width}%`;
    style.top = `${(100 * box[1]) / height}%`;
    style.width = `${(100 * (box[2] - box[0])) / width}%`;
    style.height = `${(100 * (box[3] - box[1])) / height}%`;
    rectangle.classList.toggle("high", box[1] / height < 0.06);
    rectangle.classList.toggle("right", box[0] / width > 0.8);
    rectangle.append(make("span", "name", `${name} ${percent(score)}`));

    const row = make("li");
    const button = make("button", "object");
    button.type = "button";
    const bar = make("span", "bar");
    bar.style.setProperty("--score", score);
    button.append(make("span", "swatch"), make("span", "name", name), bar, make("span", "score", percent(score)));
    const [x, y, w, h] = [box[0], box[1], box[2] - box[0], box[3] - box[1]].map(Math.round);
    button.setAttribute("aria-label", `${name}, ${percent(score)}, ${w} by ${h} pixels at ${x}, ${y}`);
    button.setAttribute("aria-pressed", "false");
    row.append(button);
    for (const element of [rectangle, button]) {
      element.dataset.index = index;
      element.style.setProperty("--colour", colour);
      element.style.setProperty("--on-colour", inkOn(colour));
    }
    return { object, box: rectangle, row, button, shown: false };
  }

  // ---- highlighting by pointer and keyboard

  listen() {
    const { boxes, list } = this.elements;
    for (const part of [boxes, list]) {
      part.addEventListener("pointerover", (event) => this.light(this.at(event.target) ?? this.pinned));
      part.addEventListener("pointerleave", () => this.light(this.pinned));
      part.addEventListener("click", (event) => this.pin(this.at(event.target)));
    }
    list.addEventListener("focusin", (event) => {
      const item = this.at(event.target);
      if (item && event.target.matches(":focus-visible")) this.light(item);
      this.rove(item);
    });
    list.addEventListener("focusout", () => this.light(this.pinned));
    list.addEventListener("keydown", (event) => this.step(event));
  }

  at(element) {
    const found = element.closest("[data-index]");
    return found ? this.items[Number(found.dataset.index)] : null;
  }

  light(item) {
    if (item === this.lit) return;
    for (const part of [this.lit?.box, this.lit?.button]) part?.classList.remove("lit");
    this.lit = item ?? null;
    for (const part of [item?.box, item?.button]) part?.classList.add("lit");
    this.elements.boxes.classList.toggle("dimmed", Boolean(item));
    if (item) this.reveal(item.row);
  }

  /** Keep an object highlighted after the pointer has left: on a click, a tap, or the enter key. */
  pin(item) {
    this.pinned?.button.setAttribute("aria-pressed", "false");
    this.pinned = item === this.pinned ? null : item;
    this.pinned?.button.setAttribute("aria-pressed", "true");
    this.light(this.pinned ?? item);
  }

  /** Scroll the list, not the page. */
  reveal(row) {
    const list = this.elements.list;
    const above = row.offsetTop - list.offsetTop - list.scrollTop;
    if (above < 0) list.scrollTop += above;
    const below = above + row.offsetHeight - list.clientHeight;
    if (below > 0) list.scrollTop += below;
  }

  /** The whole list is one stop of the tab key; the arrow keys move inside it. */
  rove(item) {
    for (const other of this.items) other.button.tabIndex = other === item ? 0 : -1;
  }

  step(event) {
    const shown = this.items.filter((item) => item.shown);
    const at = shown.indexOf(this.at(event.target));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: shown.length - 1 }[event.key];
    if (event.key === "Escape" && this.pinned) this.pin(this.pinned);
    if (to === undefined || !shown[to]) return;
    event.preventDefault();
    shown[to].button.focus();
  }

  // ---- buttons of the classes and histogram of the scores

  drawClasses() {
    const group = this.elements.classes;
    const focused = group.contains(document.activeElement) ? document.activeElement.dataset.name : null;
    const scoring = this.items.filter((item) => item.scores).map((item) => item.object);
    group.replaceChildren(...countByName(scoring).map(([name, count]) => this.classButton(name, count)));
    for (const button of group.children) if (button.dataset.name === focused) button.focus();
  }

  classButton(name, count) {
    const button = make("button", "class");
    button.type = "button";
    button.dataset.name = name;
    button.style.setProperty("--colour", this.colours.get(name) ?? "#0072b2");
    button.setAttribute("aria-pressed", String(!this.hidden.has(name)));
    button.append(make("span", "swatch"), name, make("span", "number", String(count)));
    button.addEventListener("click", () => {
      if (!this.hidden.delete(name)) this.hidden.add(name);
      this.filter();
    });
    return button;
  }

  drawHistogram(objects, least) {
    const counts = new Array(BINS).fill(0);
    for (const { score } of objects) counts[Math.min(BINS - 1, Math.floor(score * BINS))] += 1;
    const most = Math.max(1, ...counts);
    const bars = counts.map((count, bin) => {
      const bar = make("span");
      bar.dataset.from = bin / BINS;
      bar.style.height = count ? `${12 + (88 * count) / most}%` : "0";
      bar.hidden = (bin + 1) / BINS <= least;
      return bar;
    });
    this.elements.histogram.replaceChildren(...bars);
  }
}
