// The page to draw on: it reads while one draws, keeps finished drawings, and sends feedback.

import { ask, claimed, percent, readOnly, sending, token } from "./ask.js";
import * as card from "./card.js";
import { addExamples } from "./examples.js";
import { Pad } from "./pad.js";
import { prepared, readAll } from "./pictures.js";

const LIVE_MS = 60; // from a change to the request for its reading
const FINISHED_MS = 1500; // without a change after which a drawing is finished
const AGAIN_MS = 2000; // between two checks whether the model is available again
const RISKS = [null, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05]; // null is the service's own
const SAVED = "drawing"; // in sessionStorage
const SHOW_BYTES = 30_000; // of a picture that a copied command contains

const $ = (id) => document.getElementById(id);
const { maxBytes, maxPixels } = $("reading").dataset;
const limits = { maxBytes: Number(maxBytes), maxPixels: Number(maxPixels) };

let version = 0; // counts the changes
let keptVersion = -1; // the version that the log has
let reading = null; // the last answer about what is on the pad
let shown = null; // the drawing that the card is about
const kept = new WeakMap(); // what was on the pad: the `id` and `label` of its record
let isUnavailable = false;
let request = null; // the AbortController of the reading under way
let keeping = Promise.resolve(); // one after the other, so that each replaces the previous one
let liveTimer, finishedTimer, unavailableTimer;

// A drawing knows whether it may be kept, whether it was sent for that, the `id` of its record, and its `label`.
const pad = new Pad($("canvas"), changed);

function changed(isDrawing) {
  version += 1;
  delete pad.drawing.label;
  delete pad.drawing.isSent;
  const record = kept.get(pad.content);
  if (record) {
    // It is read again, and only the question comes back.
    keptVersion = version;
    Object.assign(pad.drawing, record, { isSent: true });
    if (record.label === undefined) kept.delete(pad.content); // what continues it replaces it
  }
  if (isPrivate() && pad.content) pad.drawing.isPrivate = true;
  tools();
  $("problem").textContent = "";
  $("feedback").hidden = true;
  forgetCommand();
  card.showBoxes(null, pad.size);
  clearTimeout(liveTimer);
  clearTimeout(finishedTimer);
  if (!isDrawing) save();
  if (!pad.content || pad.drawing !== shown) show(null);
  if (!pad.content) {
    request?.abort();
    return;
  }
  liveTimer = setTimeout(read, LIVE_MS);
  if (!isDrawing) finishedTimer = setTimeout(keep, FINISHED_MS);
}

function tools() {
  $("undo").disabled = !pad.canUndo;
  $("redo").disabled = !pad.canRedo;
  $("clear").disabled = $("curl").disabled = $("why").disabled = !pad.content;
  $("hint").hidden = Boolean(pad.content);
}

/** What is on the pad survives Back and reload, in this tab. */
async function save() {
  try {
    sessionStorage.setItem(SAVED, await pad.save());
  } catch {
    sessionStorage.removeItem(SAVED); // over the browser's limit
  }
}

async function restore() {
  const saved = JSON.parse(sessionStorage.getItem(SAVED) ?? "{}");
  if (saved.image) {
    const [head, data] = saved.image.split(",");
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const blob = new Blob([bytes], { type: head.slice("data:".length, -";base64".length) });
    saved.image = { blob, bitmap: await createImageBitmap(blob) };
  }
  if (pad.content || !(saved.image || saved.strokes?.length)) return;
  if (saved.drawing.isSent) kept.set(saved.image ?? saved.strokes, { ...saved.drawing });
  pad.put(saved);
}

/** Say that there is no reading: what the card had was of another picture. */
function failed(error) {
  if (error.name === "AbortError") return;
  show(null);
  complain(error);
}

function complain(error) {
  // A TypeError is what fetch throws when nobody answers; a SyntaxError is a proxy's page.
  if (error instanceof TypeError || error instanceof SyntaxError || error.status >= 502) unavailable();
  else $("problem").textContent = error.message;
}

const isPrivate = () => $("private").checked;

function risk() {
  const value = RISKS[$("risk").value];
  return value === null ? "" : `risk=${value}`;
}

async function read() {
  if (isUnavailable || !pad.content) return;
  request?.abort();
  const { signal } = (request = new AbortController());
  const asked = version;
  try {
    const answer = await readOnly(await pad.picture(), `ink=true&${risk()}`, { signal });
    if (asked !== version) return;
    show(answer);
    $("feedback").hidden = !pad.drawing.id || keptVersion !== version;
    if (pad.drawing.label) card.thank(pad.drawing.label, pad.drawing.label === claimed(answer));
  } catch (error) {
    if (asked === version) failed(error);
  }
}

/** Keep what is on the pad, in place of the drawing that it continues. */
function keep() {
  clearTimeout(finishedTimer);
  if (!pad.content || keptVersion === version || isUnavailable) return keeping;
  if (isPrivate() || pad.drawing.isPrivate || pad.drawing.isExample) {
    if (reading) card.speak(reading, pad.isUpload);
    return keeping;
  }
  const [asked, of, what, body] = [version, pad.drawing, pad.isUpload ? "uploaded" : "drawn", pad.picture()];
  keptVersion = version;
  of.isSent = true;
  save();
  keeping = keeping.then(async () => {
    const query = new URLSearchParams({ kind: what });
    if (of.id) query.set("replaces", of.id);
    const sent = await body;
    try {
      const options = sending(sent, { keepalive: sent.size < 60000 });
      const answer = await ask(`history?${query}&${risk()}`, options);
      of.id = answer.id;
      if (asked !== version) return;
      save();
      show(answer);
      card.speak(answer, pad.isUpload);
      $("feedback").hidden = answer.kept === "lost" || answer.reason === "blank";
    } catch (error) {
      if (keptVersion === asked) keptVersion = -1;
      of.isSent = false;
      if (asked === version) complain(error);
    }
  });
  return keeping;
}

function show(answer) {
  reading = answer;
  shown = pad.drawing;
  card.show(answer, pad);
  card.showCoverage(answer, RISKS[$("risk").value]);
}

async function say(what) {
  const [asked, of, content] = [version, pad.drawing, pad.content];
  await keep();
  if (!of.id) return;
  try {
    const answer = await ask(`history/${of.id}/feedback`, {
      method: "POST",
      headers: { "X-CSRF-Token": token },
      body: new URLSearchParams({ label: what }),
    });
    kept.set(content, { id: of.id, label: answer.label });
    if (asked !== version) return; // the label is of what the pad showed before
    of.label = answer.label;
    save();
    card.thank(answer.label, answer.was_right);
  } catch (error) {
    complain(error);
  }
}

/** Show the evidence for the reading, and the runner-up. */
async function explain() {
  if (!$("reasons").hidden) {
    $("reasons").hidden = true;
    $("why").setAttribute("aria-expanded", "false");
    return;
  }
  const asked = version;
  try {
    const path = `predict?record=false&explain=true&${risk()}`;
    const { explanation, prediction } = await ask(path, sending(await pad.picture()));
    if (asked !== version || prediction === null) return; // without ink there is no evidence
    $("saliency").src = `data:image/png;base64,${explanation.saliency_png}`;
    $("runner-up").textContent =
      `Orange ink is evidence for ${card.article(prediction)} ${prediction}, and blue ink is evidence against it. ` +
      `The second most likely digit is ${explanation.runner_up} (${percent(explanation.runner_up_probability)}).`;
    $("reasons").hidden = false;
    $("why").setAttribute("aria-expanded", "true");
  } catch (error) {
    if (asked === version) complain(error);
  }
}

/** Copy a command that sends what is on the pad. */
async function copyCommand() {
  const body = await pad.picture();
  const url = new URL(`${reading?.number ? "read" : "predict"}?${risk()}`, location.href).href.replace(/\?$/, "");
  const send = `curl -H 'Content-Type: ${body.type || "application/octet-stream"}' --data-binary`;
  const bytes = [...new Uint8Array(await body.arrayBuffer())].map((byte) => String.fromCharCode(byte)).join("");
  const command = body.size > SHOW_BYTES ? `${send} @picture '${url}'` : `echo '${btoa(bytes)}' | base64 -d | ${send} @- '${url}'`;
  $("command").value = command;
  try {
    await navigator.clipboard.writeText(command);
    $("copied").textContent = "The command was copied.";
  } catch {
    // Without HTTPS there is no clipboard.
    $("command").hidden = false;
    $("command").select();
    $("copied").textContent = "Copy this command.";
  }
}

/** The copied command is of another picture or risk. */
function forgetCommand() {
  $("copied").textContent = "";
  $("command").hidden = true;
}

function unavailable() {
  if (isUnavailable) return;
  isUnavailable = true;
  $("unavailable").hidden = false;
  const check = async () => {
    try {
      const response = await fetch("health/ready", { cache: "no-store" });
      if (response.ok) return available();
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
    unavailableTimer = setTimeout(check, AGAIN_MS);
  };
  clearTimeout(unavailableTimer);
  unavailableTimer = setTimeout(check, AGAIN_MS);
}

function available() {
  isUnavailable = false;
  $("unavailable").hidden = true;
  if (!pad.content) return;
  read();
  if (pad.drawing.label === undefined) finishedTimer = setTimeout(keep, FINISHED_MS);
}

/** Read chosen files: one on the pad, several into a table. */
async function take(files) {
  const chosen = [...files];
  if (chosen.length > 1) {
    const settings = { limits, words: card.words, risk: risk(), isPrivate };
    await readAll(chosen, $("several"), settings);
  } else if (chosen.length === 1) {
    try {
      const image = await prepared(chosen[0], limits);
      keep(); // what was on the pad before
      pad.put({ image });
    } catch (error) {
      $("problem").textContent = error.message;
    }
  }
}

function choosePen(isErasing) {
  pad.isErasing = isErasing;
  $("eraser").setAttribute("aria-pressed", String(isErasing));
}

$("undo").addEventListener("click", () => pad.undo());
$("redo").addEventListener("click", () => pad.redo());
$("eraser").addEventListener("click", () => choosePen(!pad.isErasing));
$("clear").addEventListener("click", () => {
  keep();
  choosePen(false);
  pad.clear();
});
$("why").addEventListener("click", explain);
$("curl").addEventListener("click", copyCommand);
$("right").addEventListener("click", () => say(claimed(reading)));
$("wrong").addEventListener("click", () => {
  $("labels").hidden = !$("labels").hidden;
  $("wrong").setAttribute("aria-expanded", String(!$("labels").hidden));
});
$("labels").addEventListener("click", (event) => {
  const chosen = event.target.closest("button")?.dataset.label;
  if (chosen !== undefined) say(chosen);
});
$("number").addEventListener("submit", (event) => {
  event.preventDefault();
  say($("number").elements.label.value);
});

/** Let a control keep its value in this browser. */
function remember(id, property, use) {
  const input = $(id);
  const before = localStorage.getItem(id);
  if (before !== null) input[property] = property === "checked" ? before === "true" : before;
  const took = () => {
    localStorage.setItem(id, input[property]);
    use();
  };
  input.addEventListener("input", took);
  use();
}
remember("pen-width", "value", () => {
  pad.width = Number($("pen-width").value) / 100;
});
remember("risk", "value", () => {
  card.showCoverage(null, RISKS[$("risk").value]);
  forgetCommand();
  keeping.then(read); // or the answer at the risk before would come last
});
remember("private", "checked", () => {
  $("kept").hidden = isPrivate();
  $("not-kept").hidden = !isPrivate();
});

for (const input of document.querySelectorAll("input[type=file]")) {
  input.addEventListener("change", async () => {
    await take(input.files);
    input.value = "";
  });
}
document.addEventListener("paste", (event) => {
  take([...event.clipboardData.files].filter(({ type }) => type.startsWith("image/")));
});
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("pad").classList.toggle("drop", name === "dragenter" || name === "dragover");
    if (name === "drop") take(event.dataTransfer.files);
  });
}
document.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.target.closest("input, textarea")) return;
  if (event.key.toLowerCase() === "z") event.shiftKey ? pad.redo() : pad.undo();
  if (event.key === "y") pad.redo();
});
addEventListener("pagehide", keep);
tools();
restore();
addExamples($("examples"), (what) => {
  keep();
  pad.put(what);
  $("pad").scrollIntoView({ block: "nearest" });
});
