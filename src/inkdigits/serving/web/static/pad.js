// The pad: strokes from mouse, touch, pen or keyboard, on a canvas. It knows no network.

const STEP = 0.025; // of the pad's side, a press of an arrow key
const PICTURE_SIDE = 280; // pixels of the picture that is sent
const WIDEST = 0.16; // of the drawing's height: a wider pen would close the loops of a small digit
const THINNEST = 0.015; // of the pad's side

export class Pad {
  #canvas;
  #state = { strokes: [], image: null, drawing: {} };
  #past = []; // states, to undo; a state is never changed once another follows
  #future = []; // states, to redo
  #current = null; // the stroke under way
  #cursor = null; // of the keyboard: {x, y}, each 0 to 1

  /** @param changed called after every change; its argument is whether a stroke is being drawn. */
  constructor(canvas, changed) {
    this.#canvas = canvas;
    this.changed = changed;
    this.width = 0.08; // of the pad's side
    this.isErasing = false;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const kind of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(kind, (event) => this.#up(event));
    }
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#leave());
    new ResizeObserver(() => this.#fit()).observe(canvas);
    document.addEventListener("themechange", () => this.render());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.render());
  }

  /** The image or the strokes, null if there are none; undo and redo bring back the same object. */
  get content() {
    return this.#state.image ?? (this.#state.strokes.length ? this.#state.strokes : null);
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  get isUpload() {
    return this.#state.image !== null;
  }

  /** An object of what is on the pad: the same one while a drawing continues, or is undone. */
  get drawing() {
    return this.#state.drawing;
  }

  /** Width and height in pixels of what `picture` returns. */
  get size() {
    const { image } = this.#state;
    return image ? [image.bitmap.width, image.bitmap.height] : [PICTURE_SIDE, PICTURE_SIDE];
  }

  undo() {
    this.#travel(this.#past, this.#future);
  }

  redo() {
    this.#travel(this.#future, this.#past);
  }

  clear() {
    if (this.content) this.put({});
  }

  /** Begin a new drawing with an image, {bitmap, blob}, or with strokes. */
  put({ strokes = [], image = null, drawing = {} }) {
    this.#push({ strokes, image, drawing });
    this.#changed(false);
  }

  /** What `put` takes, as text for sessionStorage. */
  async save() {
    const { strokes, image, drawing } = this.#state;
    const rounded = (key, value) => (typeof value === "number" ? Math.round(value * 1e4) / 1e4 : value);
    return JSON.stringify({ strokes, image: image && (await asUrl(image.blob)), drawing }, rounded);
  }

  /** What is on the pad as a blob: the image as it is, or the strokes dark on white. */
  picture() {
    if (this.#state.image) return Promise.resolve(this.#state.image.blob);
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = PICTURE_SIDE;
    const context = canvas.getContext("2d");
    paint(context, PICTURE_SIDE, "#000", this.#state.strokes);
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = "#fff";
    context.fillRect(0, 0, PICTURE_SIDE, PICTURE_SIDE);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }

  render() {
    const context = this.#canvas.getContext("2d");
    const side = this.#canvas.width;
    const colour = getComputedStyle(this.#canvas).color;
    context.clearRect(0, 0, side, side);
    const { strokes, image } = this.#state;
    if (image) {
      const { bitmap } = image;
      const scale = Math.min(side / bitmap.width, side / bitmap.height);
      const [w, h] = [bitmap.width * scale, bitmap.height * scale];
      context.drawImage(bitmap, (side - w) / 2, (side - h) / 2, w, h);
    }
    paint(context, side, colour, strokes, this.#current !== null);
    if (this.#cursor) {
      context.beginPath();
      context.arc(this.#cursor.x * side, this.#cursor.y * side, side * 0.02, 0, 2 * Math.PI);
      context.lineWidth = Math.max(2, side * 0.006);
      context.strokeStyle = colour;
      context.stroke();
    }
  }

  #push(state) {
    this.#current = null;
    this.#past.push(this.#state);
    this.#future = [];
    this.#state = state;
  }

  #travel(from, to) {
    if (from.length === 0) return;
    this.#current = null;
    to.push(this.#state);
    this.#state = from.pop();
    this.#changed(false);
  }

  #point(event) {
    const box = this.#canvas.getBoundingClientRect();
    // Mouse and finger report no useful pressure: 0.5, and 0 or 1.
    const force = event.pointerType === "pen" && event.pressure ? 0.5 + event.pressure : 1;
    return { x: (event.clientX - box.x) / box.width, y: (event.clientY - box.y) / box.height, force };
  }

  #begin(point) {
    const { strokes, image, drawing } = this.#state;
    const isNew = image !== null || strokes.length === 0 || drawing.isExample === true;
    if (isNew && this.isErasing) return;
    const stroke = { width: this.width * (this.isErasing ? 2.5 : 1), points: [point], erases: this.isErasing };
    this.#push({ strokes: [...(isNew ? [] : strokes), stroke], image: null, drawing: isNew ? {} : drawing });
    this.#current = stroke;
    this.#changed(true);
  }

  #down(event) {
    if (event.button !== 0 || !event.isPrimary) return;
    this.#cursor = null;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#begin(this.#point(event));
  }

  #move(event) {
    if (!this.#current || !event.isPrimary || !this.#canvas.hasPointerCapture(event.pointerId)) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) this.#current.points.push(this.#point(each));
    this.#changed(true);
  }

  #up(event) {
    if (!this.#current || !event.isPrimary) return;
    this.#current = null;
    this.#changed(false);
  }

  #key(event) {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in arrows) {
      const [dx, dy] = arrows[event.key];
      const at = this.#cursor ?? { x: 0.5, y: 0.5 };
      const bound = (v) => Math.min(1, Math.max(0, v));
      this.#cursor = { x: bound(at.x + dx * STEP), y: bound(at.y + dy * STEP) };
      if (this.#current) {
        this.#current.points.push({ ...this.#cursor, force: 1 });
        this.#changed(true);
      } else this.render();
    } else if (event.key === " ") {
      this.#cursor ??= { x: 0.5, y: 0.5 };
      if (this.#current) {
        this.#current = null;
        this.#changed(false);
      } else this.#begin({ ...this.#cursor, force: 1 });
    } else if (event.key === "Backspace") this.undo();
    else if (event.key === "Delete") this.clear();
    else return;
    event.preventDefault();
  }

  #leave() {
    if (!this.#cursor) return;
    this.#cursor = null;
    const wasDrawing = this.#current !== null;
    this.#current = null;
    if (wasDrawing) this.#changed(false);
    else this.render();
  }

  #fit() {
    const side = Math.round(this.#canvas.clientWidth * Math.max(1, devicePixelRatio));
    if (side && side !== this.#canvas.width) this.#canvas.width = this.#canvas.height = side;
    this.render();
  }

  #changed(isDrawing) {
    this.render();
    this.changed(isDrawing);
  }
}

/** Paint strokes on a square of `side` pixels; unfinished ones are as wide as the pen. */
export function paint(context, side, colour, strokes, isUnfinished = false) {
  const heights = strokes.filter(({ erases }) => !erases).flatMap(({ points }) => points.map(({ y }) => y));
  const height = heights.reduce((a, b) => Math.max(a, b), 0) - heights.reduce((a, b) => Math.min(a, b), 1);
  const most = isUnfinished ? 1 : Math.max(THINNEST, WIDEST * height);
  context.save();
  context.strokeStyle = context.fillStyle = colour;
  context.lineCap = context.lineJoin = "round";
  for (const { width, points, erases } of strokes) {
    context.globalCompositeOperation = erases ? "destination-out" : "source-over";
    paintStroke(context, side, erases ? width : Math.min(width, most), points);
  }
  context.restore();
}

function paintStroke(context, side, width, points) {
  const first = points[0];
  if (points.length === 1) {
    context.beginPath();
    context.arc(first.x * side, first.y * side, (width * (first.force ?? 1) * side) / 2, 0, 7);
    context.fill();
    return;
  }
  // Quadratic curves between the middles of segments have no corners at any sampling rate.
  let from = first;
  for (let k = 1; k < points.length; k++) {
    const [a, b] = [points[k - 1], points[k]];
    const last = k === points.length - 1;
    const to = last ? b : { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
    context.beginPath();
    context.lineWidth = (width * side * ((a.force ?? 1) + (b.force ?? 1))) / 2;
    context.moveTo(from.x * side, from.y * side);
    context.quadraticCurveTo(a.x * side, a.y * side, to.x * side, to.y * side);
    if (last) context.lineTo(b.x * side, b.y * side);
    context.stroke();
    from = to;
  }
}

function asUrl(blob) {
  return new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.readAsDataURL(blob);
  });
}
