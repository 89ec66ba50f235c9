// A region or slide on the server: sent, waited for, cancelled. What it found is shown by result.js.

import { Problem, ask, askJson, formOf, send, sleep } from "./api.js";

const KEY = "ductal.job";
const EVERY = 700; // ms between two looks

/** The job of this tab, kept over a reload: {id, name}, or null. */
export function keptJob() {
  const kept = sessionStorage.getItem(KEY);
  return kept ? JSON.parse(kept) : null;
}

export function keepJob(job) {
  if (job) sessionStorage.setItem(KEY, JSON.stringify({ id: job.id, name: job.name }));
  else sessionStorage.removeItem(KEY);
}

/**
 * Send a picture as a job.
 *
 * @returns {Promise<object>} the job.
 */
export async function submit({ file, name, mpp, context }, { signal, onSent }) {
  const job = await send("slides", formOf(file, name, { mpp, context }), { signal, onSent });
  keepJob(job);
  return job;
}

/**
 * Wait until a job ends.
 *
 * @param {(job: object) => void} onProgress called after each look.
 * @returns {Promise<object>} the job when done.
 * @throws {Problem} when it failed, was cancelled, or is not known any more.
 */
export async function finished(id, { signal, onProgress }) {
  for (;;) {
    const job = await askJson(`slides/${id}`, { signal });
    if (job.status === "done") return job;
    if (job.status === "failed") throw new Problem(job.problem);
    if (job.status === "cancelled") throw new Problem({ title: "Cancelled", code: "cancelled" });
    onProgress(job);
    await sleep(EVERY, signal);
  }
}

/** Delete a job and all that was made of it; one that is gone already is no trouble. */
export async function discard(id) {
  keepJob(null);
  try {
    await ask(`slides/${id}`, { method: "DELETE" });
  } catch (error) {
    if (error.status !== 404) throw error;
  }
}

/** One of its files, as a Response. */
export function resultOf(id, name, signal) {
  return ask(`slides/${id}/results/${name}`, { signal });
}
