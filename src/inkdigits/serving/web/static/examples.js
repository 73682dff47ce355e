// Examples to click on, all made here: strokes, and pictures as a camera might take them.

import { paint } from "./pad.js";

const SIDE = 480; // pixels of a picture
const WIDTH = 0.08; // of the pad's side

const stroke = (text, width = WIDTH) => ({
  width,
  points: text.split(" ").map((point) => {
    const [x, y] = point.split(",").map(Number);
    return { x: x / 100, y: y / 100, force: 1 };
  }),
});

const SEVEN = [stroke("34,30 50,28 66,29 58,45 51,60 46,76", 0.045)];

const EXAMPLES = [
  { name: "2", strokes: [stroke("31,31 36,22 48,18 60,22 66,32 62,44 50,57 38,69 30,80 48,79 71,80")] },
  { name: "5", strokes: [stroke("42,20 39,33 36,47 50,44 63,50 67,63 60,76 46,81 32,75"), stroke("42,21 55,20 67,19")] },
  {
    name: "K",
    strokes: [stroke("35,18 35,50 35,82"), stroke("66,18 56,30 46,41 36,51 46,61 56,71 67,82")],
  },
  {
    name: "408",
    strokes: [
      ...[stroke("22,33 17,45 12,56 24,56 35,55"), stroke("29,44 28,56 27,70")],
      stroke("51,34 44,41 42,53 46,66 53,68 60,61 62,49 58,38 51,34"),
      stroke("86,40 79,35 72,39 74,47 82,54 86,63 79,70 71,65 73,56 81,49 86,41"),
    ],
  },
  { name: "Photo", photo: SEVEN },
  { name: "Blank", photo: [] },
];

/** Paint paper as a camera sees it: light from one side, a shadow, noise; with strokes on it. */
function photograph(context, side, strokes) {
  const light = context.createLinearGradient(0, 0, side, side * 0.8);
  light.addColorStop(0, "#efe8d8");
  light.addColorStop(1, "#a39a88");
  context.fillStyle = light;
  context.fillRect(0, 0, side, side);
  const shadow = context.createRadialGradient(side, side, 0, side, side, side * 0.9);
  shadow.addColorStop(0, "rgb(40 34 26 / 45%)");
  shadow.addColorStop(1, "rgb(40 34 26 / 0%)");
  context.fillStyle = shadow;
  context.fillRect(0, 0, side, side);
  paint(context, side, "#27365f", strokes);
  const pixels = context.getImageData(0, 0, side, side);
  let seed = 7;
  for (let k = 0; k < pixels.data.length; k += 4) {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    const noise = (seed / 2147483648 - 0.5) * 14;
    for (let c = 0; c < 3; c++) pixels.data[k + c] += noise;
  }
  context.putImageData(pixels, 0, 0);
}

function pictureOf({ photo }) {
  const bitmap = document.createElement("canvas");
  bitmap.width = bitmap.height = SIDE;
  photograph(bitmap.getContext("2d"), SIDE, photo);
  return new Promise((resolve) => bitmap.toBlob((blob) => resolve({ bitmap, blob }), "image/jpeg", 0.9));
}

/** Add a button per example; `use` gets what a pad takes. */
export function addExamples(list, use) {
  for (const example of EXAMPLES) {
    const button = document.createElement("button");
    button.type = "button";
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 96;
    const draw = () => {
      const context = canvas.getContext("2d");
      context.clearRect(0, 0, 96, 96);
      if (example.photo) photograph(context, 96, example.photo);
      else paint(context, 96, getComputedStyle(button).color, example.strokes);
    };
    button.append(canvas, example.name);
    button.setAttribute("aria-label", `Example: ${example.name}`);
    button.addEventListener("click", async () => {
      const image = example.photo ? await pictureOf(example) : null;
      use({ strokes: example.strokes, image, drawing: { isExample: true } });
    });
    list.append(button);
    draw();
    document.addEventListener("themechange", draw);
  }
}
