// The review page: one key per label. A label is sent in the background, in order, until it is kept.

import { ask, percent, token } from "./ask.js";

const AHEAD = 30; // pictures left in the page at which more are asked for
const AGAIN_MS = 1500; // before a label that was not kept is sent again

const $ = (id) => document.getElementById(id);
const headers = { "X-CSRF-Token": token };
const why = new URLSearchParams(location.search).get("why") ?? "";

let queue = []; // what is to be labelled; the first is shown
const seen = new Set(); // ids that were ever in the queue
const done = []; // {item, label}, to undo
let last = ""; // the id after which the next ones follow
let isAtEnd = false;
let typed = ""; // of a number
let waiting = 0; // labels that are not kept yet
let sending = Promise.resolve(); // one after the other, so that an undo comes after its label
let fetching = null;

function more() {
  if (isAtEnd || fetching || queue.length > AHEAD) return fetching;
  const query = new URLSearchParams({ why, after: last });
  fetching = ask(`review/queue?${query}`, {})
    .then(({ items, progress }) => {
      isAtEnd = items.length === 0;
      if (!isAtEnd) last = items.at(-1).id;
      const fresh = items.filter((item) => !seen.has(item.id));
      for (const item of fresh) seen.add(item.id);
      queue.push(...fresh);
      count(progress);
    })
    .catch((error) => ($("problem").textContent = error.message))
    .finally(() => {
      fetching = null;
      show();
    });
  return fetching;
}

function count({ left, done: labelled, agreed }) {
  $("left").textContent = left;
  $("done").textContent = labelled;
  $("agreed").textContent = labelled ? `, ${percent(agreed / labelled)} agree with the model` : "";
}

function show() {
  const item = queue[0];
  $("item").hidden = !item;
  $("empty").hidden = Boolean(item) || !isAtEnd;
  $("undo").disabled = done.length === 0;
  $("last").textContent = done.length ? `Last label: ${done.at(-1).label ?? "skipped"}` : "";
  if (!item) return;
  const inks = item.inks.map((src) => Object.assign(new Image(84, 84), { src, alt: "Ink in 28 by 28 pixels", className: "ink" }));
  const picture = item.picture && Object.assign(new Image(), { src: item.picture, alt: "The original picture" });
  $("shown").replaceChildren(...(picture ? [picture] : inks));
  $("inks").replaceChildren(...(picture ? inks : []));
  $("seen").hidden = !picture;
  $("why").textContent = item.why;
  $("claim").textContent = item.is_closest ? "Closest:" : "Read as";
  $("read").textContent = item.read ?? "–";
  $("sure").textContent = percent(item.confidence);
  const other = item.runner_up && `The second most likely digit is ${item.runner_up.digit} (${percent(item.runner_up.share)}).`;
  $("other").textContent = [other, item.shadow && `The second model reads ${item.shadow}.`].filter(Boolean).join(" ");
  $("typed").hidden = !item.is_number;
  $("digits").textContent = typed || "Type the digits";
  $("spoken").textContent = `${$("claim").textContent} ${item.read ?? "nothing"}, ${percent(item.confidence)}. ${item.why}`;
}

function send(path, body) {
  waiting += 1;
  const attempt = async () => {
    for (;;) {
      try {
        const { progress } = await ask(path, { method: "POST", headers, body, keepalive: true });
        waiting -= 1;
        $("problem").textContent = "";
        return count(progress);
      } catch (error) {
        $("problem").textContent = `The label is not saved yet: ${error.message}`;
        if (error.status < 500 && error.status !== 429) {
          waiting -= 1;
          $("problem").textContent = `The label was not saved: ${error.message}`;
          return undefined;
        }
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      }
    }
  };
  sending = sending.then(attempt);
}

function label(what) {
  const item = queue.shift();
  typed = "";
  done.push({ item, label: what });
  if (what !== null) send(`review/${item.id}`, new URLSearchParams({ label: what }));
  more();
  show();
}

function undo() {
  const before = done.pop();
  if (!before) return;
  typed = "";
  queue.unshift(before.item);
  if (before.label !== null) send(`review/${before.item.id}/undo`, new URLSearchParams());
  show();
}

function press(key) {
  if (key === "u") return undo();
  const item = queue[0];
  if (!item) return undefined;
  if (key === "s") return label(null);
  if (key === "n") return label("none");
  if (/^[0-9]$/.test(key) && !item.is_number) return label(key);
  if (/^[0-9]$/.test(key) && typed.length < 64) typed += key;
  else if (key === "Backspace") typed = typed.slice(0, -1);
  else if (key === "Enter" && typed) return label(typed);
  return show();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  // Enter and space press the button that has the focus.
  const isButton = event.target.closest("button, a, summary") && ["Enter", " "].includes(event.key);
  if (isButton || !/^([0-9nsu]|Enter|Backspace)$/.test(event.key)) return;
  event.preventDefault();
  press(event.key);
});
document.addEventListener("click", (event) => {
  const key = event.target.closest("[data-key]")?.dataset.key;
  if (key) press(key);
});
addEventListener("beforeunload", (event) => {
  if (waiting) event.preventDefault();
});
more();
