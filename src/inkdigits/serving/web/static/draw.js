// The page to draw on: it reads while one draws, keeps finished drawings, and sends feedback.

import { Pad } from "./pad.js";

const LIVE_MS = 60; // from a change to the request for its reading
const FINISHED_MS = 1500; // without a change after which a drawing is finished
const AGAIN_MS = 2000; // between two checks whether the model is available again

const MEANING = {
  accept: "Safe to use without checking.",
  review: "Check it before you use it.",
  reject: "It does not look like one digit.",
  blank: "Ten probabilities appear while you draw.",
};
const WORDS = {
  accept: "Sure",
  review: "Please check",
  not_a_digit: "Not a digit",
  several_digits: "Several digits",
  unreadable: "Unreadable",
  blank: "Nothing drawn yet",
};

const $ = (id) => document.getElementById(id);
const token = document.querySelector('meta[name="csrf-token"]').content;
const bars = [...document.querySelectorAll(".bars li")];

let kind = "drawn";
let upload = null; // the picture as it was chosen
let drawing = 0; // counts new drawings and uploads
let version = 0; // counts the changes
let keptVersion = -1; // the version that the log has
const kept = new Map(); // drawing → its id in the log
let reading = null; // the last answer about what is on the pad
let label = null; // what the person says it is
let isUnavailable = false;
let request = null; // the AbortController of the reading under way
let keeping = Promise.resolve(); // one after the other, so that each replaces the previous one
let liveTimer, finishedTimer, unavailableTimer;

const pad = new Pad($("canvas"), (isDrawing) => {
  if (kind === "uploaded" || (pad.isEmpty && upload === null)) begin("drawn");
  changed(isDrawing);
});

function begin(what) {
  kind = what;
  upload = null;
  drawing += 1;
}

function changed(isDrawing) {
  version += 1;
  label = null;
  tools();
  $("problem").textContent = "";
  $("feedback").hidden = true;
  clearTimeout(liveTimer);
  clearTimeout(finishedTimer);
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
  $("clear").disabled = pad.isEmpty;
  $("hint").hidden = !pad.isEmpty;
}

async function ask(path, options) {
  const response = await fetch(path, options);
  const answer = await response.json();
  if (response.ok) return answer;
  throw Object.assign(new Error(answer.error.message), { status: response.status });
}

function failed(error) {
  if (error.name === "AbortError") return;
  // A TypeError is what fetch throws when nobody answers; a SyntaxError is a proxy's page.
  if (error instanceof TypeError || error instanceof SyntaxError || error.status >= 502) unavailable();
  else $("problem").textContent = error.message;
}

const picture = () => (upload ? Promise.resolve(upload) : pad.picture());

async function read() {
  if (isUnavailable || pad.isEmpty) return;
  request?.abort();
  const mine = (request = new AbortController());
  const asked = version;
  try {
    const body = await picture();
    const answer = await ask("predict?ink=true&record=false", {
      method: "POST",
      headers: { "Content-Type": body.type || "application/octet-stream" },
      body,
      signal: mine.signal,
    });
    if (asked === version) show(answer);
  } catch (error) {
    failed(error);
  }
}

/** Keep what is on the pad, in place of the drawing that it continues. */
function keep() {
  clearTimeout(finishedTimer);
  if (pad.isEmpty || keptVersion === version || isUnavailable) return keeping;
  const [asked, of, what, body] = [version, drawing, kind, picture()];
  keptVersion = version;
  keeping = keeping.then(async () => {
    const query = new URLSearchParams({ kind: what });
    if (kept.has(of)) query.set("replaces", kept.get(of));
    const sent = await body;
    try {
      const answer = await ask(`history?${query}`, {
        method: "POST",
        headers: { "Content-Type": sent.type || "application/octet-stream", "X-CSRF-Token": token },
        body: sent,
        keepalive: sent.size < 60000,
      });
      kept.set(of, answer.id);
      if (asked !== version) return;
      show(answer);
      speak(answer);
      const isKept = answer.kept !== "lost" && answer.reason !== "blank";
      $("feedback").hidden = !isKept;
    } catch (error) {
      if (keptVersion === asked) keptVersion = -1;
      failed(error);
    }
  });
  return keeping;
}

function show(answer) {
  reading = answer;
  const digit = answer?.prediction ?? null;
  const reason = answer?.decision === "reject" ? (answer.reason ?? "not_a_digit") : answer?.decision;
  const state = digit === null ? (reason ?? "blank") : answer.decision;
  $("reading").dataset.state = state;
  $("digit").textContent = digit ?? "–";
  $("decision").textContent = WORDS[reason ?? "blank"];
  $("confidence").textContent = digit === null ? "\u00a0" : percent(answer.confidence);
  $("meaning").textContent = MEANING[state] ?? MEANING.reject;
  $("ink").hidden = !answer?.ink;
  $("no-ink").hidden = Boolean(answer?.ink);
  if (answer?.ink) $("ink").src = answer.ink;
  bars.forEach((bar, k) => {
    const share = digit === null ? 0 : answer.probabilities[k];
    bar.querySelector(".fill").style.transform = `scaleX(${share})`;
    bar.querySelector(".share").textContent = digit === null ? "–" : percent(share);
    bar.classList.toggle("top", k === digit);
  });
  $("right").disabled = digit === null;
  $("question").textContent = digit === null ? "What is it?" : `Is it ${article(digit)} ${digit}?`;
  askAgain();
}

function speak(answer) {
  const { prediction, confidence, decision, reason } = answer;
  const words = WORDS[decision === "reject" ? (reason ?? "not_a_digit") : decision];
  $("spoken").textContent =
    prediction === null ? words : `${prediction}, ${percent(confidence)}. ${words}.`;
}

// Rounded down: 100.0 % is for what is certain, and nothing read from a picture is.
const percent = (share) => `${(Math.floor(share * 1000) / 10).toFixed(1)} %`;

const article = (digit) => (String(digit) === "8" ? "an" : "a");

function askAgain() {
  $("ask").hidden = false;
  $("labels").hidden = true;
  $("wrong").setAttribute("aria-expanded", "false");
  $("thanks").textContent = "";
}

async function say(what) {
  await keep();
  const id = kept.get(drawing);
  if (!id) return;
  try {
    const answer = await ask(`history/${id}/feedback`, {
      method: "POST",
      headers: { "X-CSRF-Token": token },
      body: new URLSearchParams({ label: what }),
    });
    label = answer.label;
    $("ask").hidden = true;
    $("labels").hidden = true;
    $("thanks").textContent = answer.was_right
      ? "Thank you. Noted as right."
      : `Thank you. Noted: ${label === "none" ? "not a digit" : `it is ${article(label)} ${label}`}.`;
  } catch (error) {
    failed(error);
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
  if (label === null) finishedTimer = setTimeout(keep, FINISHED_MS);
}

async function take(file) {
  if (!file) return;
  let image, copy;
  try {
    image = await createImageBitmap(file);
    // In memory: Chromium does not send a file from disk with keepalive, as if nobody answered.
    copy = new Blob([await file.arrayBuffer()], { type: file.type });
  } catch {
    $("problem").textContent = `${file.name || "This"} is not a picture that this browser can show. Choose another file.`;
    return;
  }
  keep(); // what was on the pad before
  begin("uploaded");
  upload = copy;
  pad.show(image);
  changed(false);
}

$("undo").addEventListener("click", () => pad.undo());
$("clear").addEventListener("click", () => {
  keep();
  pad.clear();
  begin("drawn");
});
$("right").addEventListener("click", () => say(String(reading.prediction)));
$("wrong").addEventListener("click", () => {
  $("labels").hidden = !$("labels").hidden;
  $("wrong").setAttribute("aria-expanded", String(!$("labels").hidden));
});
$("labels").addEventListener("click", (event) => {
  const chosen = event.target.closest("button")?.dataset.label;
  if (chosen !== undefined) say(chosen);
});

$("width").value = localStorage.getItem("pen-width") ?? $("width").value;
const setWidth = () => {
  pad.width = Number($("width").value) / 100;
  localStorage.setItem("pen-width", $("width").value);
};
$("width").addEventListener("input", setWidth);
setWidth();

$("file").addEventListener("change", () => {
  take($("file").files[0]);
  $("file").value = "";
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
  if (file) take(file);
});
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("pad").classList.toggle("drop", name === "dragenter" || name === "dragover");
    if (name === "drop") take(event.dataTransfer.files[0]);
  });
}
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "z" && pad.canUndo) pad.undo();
});
addEventListener("pagehide", keep);
tools();
