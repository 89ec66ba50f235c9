// The HTTP interface: one way to ask, one kind of error.

import { askToken, forgetToken, token } from "./token.js";

const BASE = "api/v1/";

/** What went wrong, in the words of the server (RFC 9457) or, where it did not answer, in ours. */
export class Problem extends Error {
  constructor({ title, detail = "", status = 0, code = "unknown" }) {
    super(title);
    Object.assign(this, { title, detail, status, code });
  }
}

const UNREACHABLE = {
  title: "The server does not answer",
  detail: "It may have been stopped, or the connection is lost. Start it again (ductal serve) and repeat this.",
  code: "unreachable",
};

/** The error as a Problem; an abort stays what it is. */
export function asProblem(error) {
  if (error instanceof Problem || error.name === "AbortError") return error;
  return new Problem({ title: "The page made a mistake", detail: String(error.message ?? error), code: "page" });
}

function problemOf(status, text) {
  try {
    const told = JSON.parse(text);
    if (told.title) return new Problem({ ...told, status });
  } catch {
    // not JSON: a proxy between may have answered
  }
  return new Problem({
    title: `The server answered with an error (${status})`,
    detail: "It did not say why. Try again; the server's own log may say more.",
    status,
    code: `http_${status}`,
  });
}

function headers() {
  const value = token();
  return value ? { Authorization: `Bearer ${value}` } : {};
}

/**
 * Ask the interface.
 *
 * @param {string} path below /api/v1/.
 * @param {{method?: string, body?: FormData, signal?: AbortSignal}} options
 * @returns {Promise<Response>} of a status below 400.
 * @throws {Problem} otherwise; AbortError when the signal says so.
 */
export async function ask(path, { method = "GET", body, signal } = {}) {
  for (;;) {
    let response;
    try {
      response = await fetch(BASE + path, { method, body, signal, headers: headers(), cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem(UNREACHABLE);
    }
    if (response.ok) return response;
    const problem = problemOf(response.status, await response.text());
    if (!(await newToken(problem))) throw problem;
  }
}

/** The same, as JSON. */
export async function askJson(path, options) {
  return (await ask(path, options)).json();
}

/** The same, as an address for an image; the caller revokes it. */
export async function askPicture(path, options) {
  return URL.createObjectURL(await (await ask(path, options)).blob());
}

/** A path that the server gave, made relative to the interface. */
export function pathOf(url) {
  return url.replace(/^.*?\/api\/v1\//, "");
}

/** True when the user gave a token after a refusal, so that asking again makes sense. */
async function newToken(problem) {
  if (problem.status !== 401) return false;
  const wrong = token() !== "";
  forgetToken();
  return askToken(wrong);
}

/**
 * Send a form with its progress, which fetch cannot tell.
 *
 * @param {string} path below /api/v1/.
 * @param {FormData} form
 * @param {{signal: AbortSignal, onSent: (share: number) => void}} options
 * @returns {Promise<object>} the JSON answer.
 */
export async function send(path, form, { signal, onSent }) {
  for (;;) {
    const { status, text } = await sendOnce(path, form, signal, onSent);
    if (status >= 200 && status < 300) return JSON.parse(text);
    const problem = problemOf(status, text);
    if (!(await newToken(problem))) throw problem;
  }
}

function sendOnce(path, form, signal, onSent) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", BASE + path);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && onSent(event.loaded / event.total);
    request.onload = () => resolve({ status: request.status, text: request.responseText });
    request.onerror = () => reject(new Problem(UNREACHABLE));
    request.onabort = () => reject(new DOMException("given up", "AbortError"));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(form);
  });
}

/** Wait until the model is loaded. `onWait` is called once if that takes a while. */
export async function whenReady(onWait = () => {}) {
  let told = false;
  for (;;) {
    try {
      await ask("ready");
      return;
    } catch (error) {
      if (error.status !== 503) throw error;
      if (!told) onWait();
      told = true;
      await sleep(1000);
    }
  }
}

/** A pause; ends early with an AbortError when the signal says so. */
export function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        reject(new DOMException("given up", "AbortError"));
      },
      { once: true },
    );
  });
}

/** A form with one file, and fields beside it. */
export function formOf(file, name, fields = {}) {
  const form = new FormData();
  form.append("file", file, name);
  for (const [key, value] of Object.entries(fields)) {
    if (value !== null && value !== undefined && value !== "") form.append(key, String(value));
  }
  return form;
}
