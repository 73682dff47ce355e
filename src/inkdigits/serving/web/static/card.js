// The card beside the pad: what a reading says, in words, bars and frames. It knows no network.

import { claimed, percent } from "./ask.js";

const MEANING = {
  empty: "The probability of each digit appears while you draw.",
  accept: "Safe to use without checking.",
  review: "Check this reading before you use it.",
  blank: "Use more light or a darker pen.",
  not_a_digit: "The ink does not look like a digit.",
  several_digits: "The number was read digit by digit.",
  unreadable: "Each digit has a probability below 50\u00a0%.",
  cut_off: "Leave some space around the digit.",
};

const $ = (id) => document.getElementById(id);
const card = $("reading");
export const words = { ...JSON.parse(card.dataset.words), empty: "Nothing drawn yet" };
const bars = [...document.querySelectorAll(".bars li")];

/** Show what is read on a pad; null shows that nothing is. */
export function show(answer, pad) {
  const state = stateOf(answer);
  const digit = answer?.prediction ?? null;
  const isOne = digit !== null && !answer.number; // a number has no probabilities of one digit
  const isRead = digit !== null && answer.decision !== "reject";
  card.dataset.state = answer?.number ? "number" : (answer?.decision ?? "empty");
  $("digit").textContent = isRead ? digit : "–";
  $("digit").hidden = Boolean(answer) && !isRead;
  $("decision").textContent = headline(answer, pad.isUpload);
  $("confidence").textContent = isRead ? percent(answer.confidence) : "\u00a0";
  const closest = isOne && !isRead ? ` Closest: ${digit}, ${percent(answer.confidence)}.` : "";
  $("meaning").textContent = meaning(answer, state, pad.isUpload) + closest;
  $("ink").hidden = !answer?.ink;
  $("no-ink").hidden = Boolean(answer?.ink);
  if (answer?.ink) $("ink").src = answer.ink;
  bars.forEach((bar, k) => {
    const share = isOne ? answer.probabilities[k] : 0;
    bar.querySelector(".fill").style.setProperty("--share", share);
    bar.querySelector(".share").textContent = isOne ? percent(share) : "–";
    bar.classList.toggle("top", k === digit && isRead);
  });
  showBoxes(answer?.number, pad.size);
  $("reasons").hidden = true;
  $("why").setAttribute("aria-expanded", "false");
  $("why").disabled = !isOne;
  askAgain(answer);
}

const stateOf = (answer) => (answer ? (answer.reason ?? answer.decision) : "empty");

function headline(answer, isUpload) {
  const state = stateOf(answer);
  if (answer?.number) return `${words.several_digits}: ${answer.number.text}`;
  return state === "blank" && isUpload ? "No ink found in this picture" : words[state];
}

function meaning(answer, state, isUpload) {
  if (state === "blank" && !isUpload) return "Draw with the pen.";
  if (!answer?.number) return MEANING[state] ?? "";
  const { decision, confidence } = answer.number;
  return `${MEANING.several_digits} ${words[decision] ?? words.unreadable}, ${percent(confidence)}.`;
}

/** Draw a frame around each digit of a number, over the picture. */
export function showBoxes(number, size) {
  const frames = (number?.digits ?? []).map(({ box: [x, y, width, height] }) => {
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [name, value] of Object.entries({ x, y, width, height })) rect.setAttribute(name, value);
    return rect;
  });
  $("boxes").setAttribute("viewBox", `0 0 ${size.join(" ")}`);
  $("boxes").replaceChildren(...frames);
}

/** Say at which risk is read, null for the service's own, and what it costs; a model service does not tell. */
export function showCoverage(answer, value) {
  const { own, choices = "[]" } = $("risk").dataset;
  const stated = value ?? Number(own ?? NaN);
  const share = Number.isNaN(stated) ? "" : `${Number((stated * 100).toPrecision(6))}\u00a0%`;
  $("risk-value").textContent = value === null ? ["service default", share].filter(Boolean).join(", ") : share;
  const choice = JSON.parse(choices).filter(([risk]) => risk <= stated).at(-1);
  const coverage = answer?.coverage ?? (own && (choice?.[1] ?? 0));
  $("coverage").textContent = coverage !== undefined
    ? `At this risk, ${percent(coverage)} of the calibration digits are marked as sure.`
    : "The risk is the tolerated share of wrong readings among the readings marked as sure.";
}

/** Say a reading to screen readers. */
export function speak(answer, isUpload) {
  const { prediction, confidence, decision } = answer;
  const said = headline(answer, isUpload);
  $("spoken").textContent = decision === "reject" ? said : `${prediction}, ${percent(confidence)}. ${said}.`;
}

export const article = (digit) => (String(digit)[0] === "8" ? "an" : "a");

function askAgain(answer) {
  const claim = answer && claimed(answer);
  const isOne = claim?.length === 1;
  $("question").textContent =
    claim === "none" ? "Is this reading right?" : claim ? `Is it ${isOne ? `${article(claim)} ` : ""}${claim}?` : "What is the correct label?";
  $("question").hidden = false;
  $("ask").hidden = !claim;
  $("labels").hidden = Boolean(claim);
  $("number").hidden = !answer?.number;
  $("wrong").setAttribute("aria-expanded", "false");
  $("thanks").textContent = "";
}

/** Thank for a label. */
export function thank(label, wasRight) {
  $("question").hidden = $("ask").hidden = $("labels").hidden = true;
  const said = label === "none" ? "“not a digit”" : label;
  $("thanks").textContent = wasRight ? "Thank you. The reading was saved as right." : `Thank you. The label ${said} was saved.`;
}
