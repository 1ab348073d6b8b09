/** JSON over HTTP. An answer that is not ok becomes an ApiError with the server's own sentence and the rest of its answer. */

export class ApiError extends Error {
  constructor(message, { status, code, answer = {} }) {
    super(message);
    this.status = status;
    this.code = code;
    this.answer = answer;
  }
}

let signedOut = false;

/** The log-in that this page was opened with is over: what is refused now is refused for that. */
export function setSignedOut(isOver) {
  signedOut = isOver;
}

export function isSignedOut() {
  return signedOut;
}

export function get(path) {
  return request(path, { method: "GET" });
}

export function post(path, body, headers = {}) {
  return request(path, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json", "X-CSRFToken": csrfToken(), ...headers },
  });
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch {
    throw new ApiError("The server cannot be reached. Check your connection and try again.", {
      status: 0,
      code: "unreachable",
    });
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  if (signedOut) answer.error = "You are signed out. Log in again to go on.";
  throw new ApiError(
    answer.error ?? `The server refused this (${response.status}). Reload the page and try again.`,
    { status: response.status, code: answer.code ?? "refused", answer },
  );
}

function csrfToken() {
  return document.cookie.match(/(?:^|;\s*)csrftoken=([^;]*)/)?.[1] ?? "";
}
