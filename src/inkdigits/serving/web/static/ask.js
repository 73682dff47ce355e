// What the pages share: asking the service, and shares in per cent.

export const token = document.querySelector('meta[name="csrf-token"]')?.content;

/** Return the JSON of an answer; an error's message and status are thrown. */
export async function ask(path, options) {
  const response = await fetch(path, options);
  const answer = await response.json();
  if (response.ok) return answer;
  throw Object.assign(new Error(answer.error?.message ?? `The service returned status ${response.status}.`), { status: response.status });
}

/** The options of a request that sends a picture. */
export const sending = (body, more = {}) => ({
  method: "POST",
  headers: { "Content-Type": body.type || "application/octet-stream", "X-CSRF-Token": token },
  body,
  ...more,
});

/** Read a picture; nothing is kept. */
export const readOnly = (body, query, options) => ask(`predict?record=false&${query}`, sending(body, options));

// Rounded down: 100.0 % is for what is certain, and nothing read from a picture is.
export const percent = (share) => `${(Math.floor(share * 1000) / 10).toFixed(1)}\u00a0%`;

/** What an answer claims: a digit, a number or "none" as feedback has them; null claims nothing. */
export function claimed({ decision, prediction, reason, number }) {
  if (number?.text) return number.text;
  if (decision !== "reject") return String(prediction);
  return reason === "not_a_digit" ? "none" : null;
}
