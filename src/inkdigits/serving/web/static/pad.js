// The pad: strokes from mouse, touch, pen or keyboard, on a canvas. It knows no network.

const STEP = 0.025; // of the pad's side, a press of an arrow key
const PICTURE_SIDE = 280; // pixels of the picture that is sent

export class Pad {
  #canvas;
  #strokes = [];
  #current = null;
  #cursor = null; // of the keyboard: {x, y}, each 0 to 1
  #image = null;

  /** @param changed called after every change; its argument is whether a stroke is being drawn. */
  constructor(canvas, changed) {
    this.#canvas = canvas;
    this.changed = changed;
    this.width = 0.08; // of the pad's side
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

  get isEmpty() {
    return this.#strokes.length === 0 && this.#image === null;
  }

  get canUndo() {
    return this.#strokes.length > 0;
  }

  undo() {
    this.#current = null;
    this.#strokes.pop();
    this.#changed(false);
  }

  clear() {
    this.#current = null;
    this.#strokes = [];
    this.#image = null;
    this.#changed(false);
  }

  /** Show a picture in place of the strokes. */
  show(image) {
    this.#current = null;
    this.#strokes = [];
    this.#image = image;
    this.render();
  }

  /** The strokes as a PNG, dark on white whatever the theme. */
  picture() {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = PICTURE_SIDE;
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, PICTURE_SIDE, PICTURE_SIDE);
    this.#draw(context, PICTURE_SIDE, "#000");
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }

  render() {
    const context = this.#canvas.getContext("2d");
    const side = this.#canvas.width;
    const colour = getComputedStyle(this.#canvas).color;
    context.clearRect(0, 0, side, side);
    if (this.#image) {
      const scale = Math.min(side / this.#image.width, side / this.#image.height);
      const [w, h] = [this.#image.width * scale, this.#image.height * scale];
      context.drawImage(this.#image, (side - w) / 2, (side - h) / 2, w, h);
    }
    this.#draw(context, side, colour);
    if (this.#cursor) {
      context.beginPath();
      context.arc(this.#cursor.x * side, this.#cursor.y * side, side * 0.02, 0, 2 * Math.PI);
      context.lineWidth = Math.max(2, side * 0.006);
      context.strokeStyle = colour;
      context.stroke();
    }
  }

  #draw(context, side, colour) {
    context.strokeStyle = context.fillStyle = colour;
    context.lineCap = context.lineJoin = "round";
    for (const { width, points } of this.#strokes) {
      const first = points[0];
      if (points.length === 1) {
        context.beginPath();
        context.arc(first.x * side, first.y * side, (width * first.force * side) / 2, 0, 7);
        context.fill();
        continue;
      }
      // Quadratic curves between the middles of segments have no corners at any sampling rate.
      let from = first;
      for (let k = 1; k < points.length; k++) {
        const [a, b] = [points[k - 1], points[k]];
        const last = k === points.length - 1;
        const to = last ? b : { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
        context.beginPath();
        context.lineWidth = (width * side * (a.force + b.force)) / 2;
        context.moveTo(from.x * side, from.y * side);
        context.quadraticCurveTo(a.x * side, a.y * side, to.x * side, to.y * side);
        if (last) context.lineTo(b.x * side, b.y * side);
        context.stroke();
        from = to;
      }
    }
  }

  #point(event) {
    const box = this.#canvas.getBoundingClientRect();
    // Mouse and finger report no useful pressure: 0.5, and 0 or 1.
    const force = event.pointerType === "pen" && event.pressure ? 0.5 + event.pressure : 1;
    return { x: (event.clientX - box.x) / box.width, y: (event.clientY - box.y) / box.height, force };
  }

  #begin(point) {
    this.#image = null;
    this.#current = { width: this.width, points: [point] };
    this.#strokes.push(this.#current);
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
