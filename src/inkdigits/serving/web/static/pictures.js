// Pictures that are chosen: made small enough for the service, and several of them read into a table.

import { ask, claimed, percent, readOnly, sending } from "./ask.js";

const MOST_PIXELS = 3_000_000; // a digit of a page needs no more
const SAFE_BYTES = 2_000_000; // of a file that is sent as it is
const THUMBNAIL = 48; // pixels

let chosen = null; // the files of the table

/** Return {bitmap, blob} of a file, reduced to the limits; throws what the person is told. */
export async function prepared(file, { maxBytes, maxPixels }) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name || "This"} is not a picture that this browser can show. Choose another file.`);
  }
  const scale = Math.sqrt(Math.min(MOST_PIXELS, maxPixels) / (bitmap.width * bitmap.height));
  if (scale >= 1 && file.size <= Math.min(SAFE_BYTES, maxBytes)) {
    // In memory: Chromium does not send a file from disk with keepalive, as if nobody answered.
    return { bitmap, blob: new Blob([await file.arrayBuffer()], { type: file.type }) };
  }
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.floor(bitmap.width * Math.min(1, scale)));
  canvas.height = Math.max(1, Math.floor(bitmap.height * Math.min(1, scale)));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const isPhoto = file.type === "image/jpeg"; // others may be transparent
  const blob = await new Promise((done) => canvas.toBlob(done, isPhoto ? "image/jpeg" : "image/png", 0.92));
  return { bitmap: canvas, blob };
}

/** Read pictures one after the other into the table; `settings` say how they are read and kept. */
export async function readAll(files, section, settings) {
  const body = section.querySelector("tbody");
  const rows = [];
  chosen = files;
  body.replaceChildren();
  section.hidden = false;
  section.scrollIntoView({ block: "nearest" });
  for (const [k, file] of files.entries()) {
    section.querySelector("[role=status]").textContent = `Picture ${k + 1} of ${files.length} …`;
    const row = await readOne(file, settings);
    if (chosen !== files) return; // others were chosen since
    rows.push(row);
    body.append(rowOf(row));
  }
  const counts = Map.groupBy(rows, ({ words }) => words);
  section.querySelector("[role=status]").textContent =
    `${files.length} pictures: ${[...counts].map(([words, some]) => `${some.length} ${words.toLowerCase()}`).join(", ")}.`;
  const link = section.querySelector("a[download]");
  URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([csvOf(rows)], { type: "text/csv" }));
}

async function readOne(file, { limits, words, risk, isPrivate }) {
  const row = { file: file.name, read: "", confidence: "", decision: "", reason: "", words: "Failed", thumbnail: null };
  try {
    const { bitmap, blob } = await prepared(file, limits);
    row.thumbnail = bitmap;
    const answer = isPrivate()
      ? await readOnly(blob, risk)
      : await ask(`history?kind=uploaded&${risk}`, sending(blob));
    const { decision, reason, confidence } = answer.number ?? answer;
    const claim = claimed(answer);
    const read = claim === "none" ? "" : (claim ?? "");
    const shown = { decision, reason: reason ?? "", confidence: read && Math.floor(confidence * 1e4) / 1e4, read };
    return { ...row, ...shown, words: words[answer.reason ?? decision] };
  } catch (error) {
    return { ...row, reason: error.message };
  }
}

function rowOf(row) {
  const tr = document.createElement("tr");
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = THUMBNAIL;
  if (row.thumbnail) {
    const { width, height } = row.thumbnail;
    const scale = THUMBNAIL / Math.max(width, height);
    const [w, h] = [width * scale, height * scale];
    canvas.getContext("2d").drawImage(row.thumbnail, (THUMBNAIL - w) / 2, (THUMBNAIL - h) / 2, w, h);
  }
  const cell = (...content) => {
    const td = document.createElement("td");
    td.append(...content);
    tr.append(td);
  };
  const more = row.words === "Failed" ? `: ${row.reason}` : row.confidence && `, ${percent(row.confidence)}`;
  const file = Object.assign(document.createElement("p"), { className: "note", textContent: row.file });
  cell(canvas);
  cell(row.read || "–");
  cell(row.words + more, file);
  return tr;
}

function csvOf(rows) {
  const names = ["file", "read", "confidence", "decision", "reason"];
  // A spreadsheet takes a text that begins so for a formula.
  const safe = (text) => (/^[=+\-@\t]/.test(text) ? `'${text}` : text);
  const quoted = (text) => `"${safe(String(text)).replaceAll('"', '""')}"`;
  return [names, ...rows.map((row) => names.map((name) => row[name]))]
    .map((line) => `${line.map(quoted).join(",")}\r\n`)
    .join("");
}
