// The page to draw on: it reads while one draws, keeps finished drawings, and sends feedback.

import { ask, claimed, percent, readOnly, sending, token } from "./ask.js";
import { addExamples } from "./examples.js";
import { Pad } from "./pad.js";
import { prepared, readAll } from "./pictures.js";

const LIVE_MS = 60; // from a change to the request for its reading
const FINISHED_MS = 1500; // without a change after which a drawing is finished
const AGAIN_MS = 2000; // between two checks whether the model is available again
const RISKS = [null, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05]; // null is the service's own
const SAVED = "drawing"; // in sessionStorage
const SHOW_BYTES = 30_000; // of a picture that a copied command contains

const MEANING = {
  empty: "Ten probabilities appear while you draw.",
  accept: "Safe to use without checking.",
  review: "Check it before you use it.",
  blank: "Try more light or a darker pen.",
  not_a_digit: "It does not look like a digit.",
  several_digits: "Read as a number, digit by digit.",
  unreadable: "No digit is likelier than not.",
  cut_off: "Leave some space around the digit.",
};

const $ = (id) => document.getElementById(id);
const card = $("reading");
const words = { ...JSON.parse(card.dataset.words), empty: "Nothing drawn yet" };
const limits = { maxBytes: Number(card.dataset.maxBytes), maxPixels: Number(card.dataset.maxPixels) };
const bars = [...document.querySelectorAll(".bars li")];
const thin = "\u00a0";

let version = 0; // counts the changes
let keptVersion = -1; // the version that the log has
let reading = null; // the last answer about what is on the pad
let isUnavailable = false;
let request = null; // the AbortController of the reading under way
let keeping = Promise.resolve(); // one after the other, so that each replaces the previous one
let liveTimer, finishedTimer, unavailableTimer;

// A drawing knows whether it was sent to be kept, the `id` of its record, and its `label`.
const pad = new Pad($("canvas"), changed);

function changed(isDrawing) {
  version += 1;
  delete pad.drawing.label;
  delete pad.drawing.isSent;
  tools();
  $("problem").textContent = "";
  $("feedback").hidden = true;
  showBoxes(null);
  clearTimeout(liveTimer);
  clearTimeout(finishedTimer);
  if (!isDrawing) save();
  if (pad.isEmpty) {
    request?.abort();
    show(null);
    return;
  }
  liveTimer = setTimeout(read, LIVE_MS);
  if (!isDrawing) finishedTimer = setTimeout(keep, FINISHED_MS);
}

function tools() {
  $("undo").disabled = !pad.canUndo;
  $("redo").disabled = !pad.canRedo;
  $("clear").disabled = $("curl").disabled = $("why").disabled = pad.isEmpty;
  $("hint").hidden = !pad.isEmpty;
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
  if (!pad.isEmpty || !(saved.image || saved.strokes?.length)) return;
  const before = { ...saved.drawing };
  pad.put(saved);
  if (!before.isSent) return;
  // The log has it already: it is read again, and only the question comes back.
  clearTimeout(finishedTimer);
  keptVersion = version;
  Object.assign(pad.drawing, before);
  save();
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
  if (isUnavailable || pad.isEmpty) return;
  request?.abort();
  const { signal } = (request = new AbortController());
  const asked = version;
  try {
    const answer = await readOnly(await pad.picture(), `ink=true&${risk()}`, { signal });
    if (asked !== version) return;
    show(answer);
    $("feedback").hidden = !pad.drawing.id || keptVersion !== version;
    if (pad.drawing.label) thank(pad.drawing.label);
  } catch (error) {
    if (asked === version) failed(error);
  }
}

/** Keep what is on the pad, in place of the drawing that it continues. */
function keep() {
  clearTimeout(finishedTimer);
  if (pad.isEmpty || keptVersion === version || isUnavailable) return keeping;
  if (isPrivate() || pad.drawing.isExample) {
    if (reading) speak(reading);
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
      speak(answer);
      $("feedback").hidden = answer.kept === "lost" || answer.reason === "blank";
    } catch (error) {
      if (keptVersion === asked) keptVersion = -1;
      of.isSent = false;
      if (asked === version) failed(error);
    }
  });
  return keeping;
}

function show(answer) {
  reading = answer;
  const state = answer ? (answer.reason ?? answer.decision) : "empty";
  const digit = answer?.prediction ?? null;
  const isRead = digit !== null && answer.decision !== "reject";
  card.dataset.state = answer?.number ? "number" : (answer?.decision ?? "empty");
  $("digit").textContent = isRead ? digit : "–";
  $("digit").hidden = Boolean(answer) && !isRead;
  $("decision").textContent = headline(answer, state);
  $("confidence").textContent = isRead ? percent(answer.confidence) : thin;
  const closest = !isRead && digit !== null && !answer.number ? ` Closest: ${digit}, ${percent(answer.confidence)}.` : "";
  $("meaning").textContent = meaning(answer, state) + closest;
  $("ink").hidden = !answer?.ink;
  $("no-ink").hidden = Boolean(answer?.ink);
  if (answer?.ink) $("ink").src = answer.ink;
  bars.forEach((bar, k) => {
    const share = digit === null ? 0 : answer.probabilities[k];
    bar.querySelector(".fill").style.setProperty("--share", share);
    bar.querySelector(".share").textContent = digit === null ? "–" : percent(share);
    bar.classList.toggle("top", k === digit && isRead);
  });
  showBoxes(answer?.number);
  showCoverage(answer);
  $("reasons").hidden = true;
  $("why").setAttribute("aria-expanded", "false");
  $("why").disabled = digit === null;
  askAgain(answer);
}

function headline(answer, state) {
  if (answer?.number) return `${words.several_digits}: ${answer.number.text}`;
  return state === "blank" && pad.isUpload ? "No ink found in this picture" : words[state];
}

function meaning(answer, state) {
  if (state === "blank" && !pad.isUpload) return "Draw with the pen.";
  if (!answer?.number) return MEANING[state] ?? "";
  const { decision, confidence } = answer.number;
  return `${MEANING.several_digits} ${words[decision] ?? words.unreadable}, ${percent(confidence)}.`;
}

/** Draw a frame around each digit of a number, over the picture. */
function showBoxes(number) {
  const frames = (number?.digits ?? []).map(({ box: [x, y, width, height] }) => {
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [name, value] of Object.entries({ x, y, width, height })) rect.setAttribute(name, value);
    return rect;
  });
  $("boxes").setAttribute("viewBox", `0 0 ${pad.size.join(" ")}`);
  $("boxes").replaceChildren(...frames);
}

function showCoverage(answer) {
  const value = RISKS[$("risk").value];
  $("risk-value").textContent = value === null ? "the service’s own" : `${value * 100} %`;
  const known = answer?.coverage !== undefined && answer.coverage !== null;
  $("coverage").textContent = known
    ? `At this risk ${percent(answer.coverage)} of digits are safe to use unseen.`
    : "How many of the readings called sure may be wrong.";
}

function speak(answer) {
  const { prediction, confidence, decision } = answer;
  const said = headline(answer, answer.reason ?? decision);
  $("spoken").textContent = decision === "reject" ? said : `${prediction}, ${percent(confidence)}. ${said}.`;
}

const article = (digit) => (String(digit)[0] === "8" ? "an" : "a");

function askAgain(answer) {
  const claim = answer && claimed(answer);
  const isOne = claim?.length === 1;
  $("question").textContent =
    claim === "none" ? "Is it really no digit?" : claim ? `Is it ${isOne ? `${article(claim)} ` : ""}${claim}?` : "What is it?";
  $("ask").hidden = !claim;
  $("labels").hidden = Boolean(claim);
  $("number").hidden = !answer?.number;
  $("wrong").setAttribute("aria-expanded", "false");
  $("thanks").textContent = "";
}

function thank(label, wasRight = label === claimed(reading)) {
  $("ask").hidden = $("labels").hidden = true;
  const said = label === "none" ? "not a digit" : `it is ${label.length === 1 ? `${article(label)} ` : ""}${label}`;
  $("thanks").textContent = wasRight ? "Thank you. Noted as right." : `Thank you. Noted: ${said}.`;
}

async function say(what) {
  await keep();
  const of = pad.drawing;
  if (!of.id) return;
  try {
    const answer = await ask(`history/${of.id}/feedback`, {
      method: "POST",
      headers: { "X-CSRF-Token": token },
      body: new URLSearchParams({ label: what }),
    });
    of.label = answer.label;
    save();
    thank(answer.label, answer.was_right);
  } catch (error) {
    complain(error);
  }
}

/** Show what speaks for the reading, and the runner-up. */
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
    if (asked !== version) return;
    $("saliency").src = `data:image/png;base64,${explanation.saliency_png}`;
    $("runner-up").textContent =
      `Orange ink speaks for ${article(prediction)} ${prediction}, blue against it. ` +
      `Next likeliest: ${explanation.runner_up}, ${percent(explanation.runner_up_probability)}.`;
    $("reasons").hidden = false;
    $("why").setAttribute("aria-expanded", "true");
  } catch (error) {
    complain(error);
  }
}

/** Copy a command that sends what is on the pad. */
async function copyCommand() {
  const body = await pad.picture();
  const url = new URL(`predict?${risk()}`, location.href).href.replace(/\?$/, "");
  const send = `curl -H 'Content-Type: ${body.type || "application/octet-stream"}' --data-binary`;
  const bytes = [...new Uint8Array(await body.arrayBuffer())].map((byte) => String.fromCharCode(byte)).join("");
  const command = body.size > SHOW_BYTES ? `${send} @picture '${url}'` : `echo '${btoa(bytes)}' | base64 -d | ${send} @- '${url}'`;
  $("command").value = command;
  try {
    await navigator.clipboard.writeText(command);
    $("copied").textContent = "Copied.";
  } catch {
    // Without HTTPS there is no clipboard.
    $("command").hidden = false;
    $("command").select();
    $("copied").textContent = "Copy this command.";
  }
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
  if (pad.isEmpty) return;
  read();
  if (pad.drawing.label === undefined) finishedTimer = setTimeout(keep, FINISHED_MS);
}

/** Read chosen files: one on the pad, several into a table. */
async function take(files) {
  const chosen = [...files];
  if (chosen.length > 1) {
    const settings = { limits, words, risk: risk(), isPrivate: isPrivate() };
    await readAll(chosen, $("several"), settings);
  } else if (chosen.length === 1) {
    keep(); // what was on the pad before
    try {
      const image = await prepared(chosen[0], limits);
      show(null);
      pad.put({ image });
    } catch (error) {
      pad.clear();
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
  showCoverage(null);
  read();
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
});
