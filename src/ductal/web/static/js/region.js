// The view of a region or slide while it is sent, waits and is computed; then result.js has it.

import { Problem, asProblem, askJson } from "./api.js";
import { announce, button, byId, showProblem, shown } from "./dom.js";
import { counted, duration } from "./format.js";
import { discard, finished, keepJob, keptJob, submit } from "./job.js";
import { closeResult, openResult, prepareResult } from "./result.js";

let current = null; // {name, file?, mpp?, context?, id?}
let running = new AbortController();
let saidAt = 0;

/** Listen. */
export function prepareRegion() {
  prepareResult();
  byId("region-cancel").addEventListener("click", cancel);
  byId("region-discard").addEventListener("click", async () => {
    await leave();
    location.hash = "#start";
  });
  byId("again").addEventListener("submit", (event) => {
    event.preventDefault();
    const context = byId("again-context-row").hidden ? undefined : byId("again-context").checked;
    openRegion({ ...current, mpp: byId("again-mpp").value, context });
  });
}

/** Whether there is a region to show. */
export function hasRegion() {
  return current !== null;
}

/**
 * Send a picture and show what comes of it.
 *
 * @param {{file: Blob, name: string, mpp?: number|string, context?: boolean}} region
 */
export async function openRegion({ file, name, mpp, context }) {
  const signal = await begin(name);
  current = { file, name, mpp, context };
  stage("Sending …", null);
  await work(signal, async () => {
    const onSent = (share) =>
      stage(share < 1 ? "Sending …" : "Sent. The server reads it …", share < 1 ? share : null);
    const job = await submit({ file, name, mpp, context }, { signal, onSent });
    return job.id;
  });
}

/** Go on with the job of this tab after a reload. */
export async function resumeRegion({ id, name }) {
  const signal = await begin(name, id);
  current = { name };
  stage("Asking the server …", null);
  await work(signal, async () => id);
}

/** The job kept from before a reload, if the server still has it. */
export async function resumable() {
  const kept = keptJob();
  if (!kept || current) return null;
  try {
    const job = await askJson(`slides/${kept.id}`);
    return ["failed", "cancelled"].includes(job.status) ? null : kept;
  } catch {
    keepJob(null);
    return null;
  }
}

async function begin(name, keep = null) {
  running.abort();
  const before = keptJob();
  if (before && before.id !== keep) discard(before.id).catch(() => {}); // its time on the server is limited anyway
  running = new AbortController();
  byId("region-title").textContent = name;
  closeResult();
  showProblem(byId("region-problem"), null);
  for (const id of ["region-done", "again", "region-discard"]) shown(byId(id), false);
  shown(byId("region-running"), true);
  return running.signal;
}

async function work(signal, start) {
  try {
    current.id = await start();
    const job = await finished(current.id, { signal, onProgress: progress });
    await openResult(job, signal);
    if (signal.aborted) return;
    shown(byId("region-discard"), true);
    offerAgain(job);
  } catch (error) {
    if (signal.aborted) return;
    fail(asProblem(error));
  } finally {
    if (running.signal === signal) shown(byId("region-running"), false);
  }
}

function stage(words, share, left = "") {
  byId("region-stage").textContent = words;
  byId("region-left").textContent = left;
  const bar = byId("region-progress");
  if (share === null) bar.removeAttribute("value");
  else bar.value = share;
  if (Date.now() - saidAt > 5000) {
    saidAt = Date.now();
    announce(`${words} ${left}`);
  }
}

function progress({ status, position, progress: now }) {
  if (status === "queued") {
    stage(
      position ? `Waiting; ${counted(position, "other waits", "others wait")} before it` : "Next in line …",
      null,
    );
  } else if (!now || !now.total) {
    stage("Starting, and looking for tissue …", null);
  } else {
    const left =
      now.eta_seconds === null || now.eta_seconds === undefined ? "" : `About ${duration(now.eta_seconds)} left`;
    stage(
      `Classifying tiles: ${now.done.toLocaleString("en")} of ${now.total.toLocaleString("en")}`,
      now.done / now.total,
      left,
    );
  }
}

async function cancel() {
  const { id } = current;
  running.abort();
  shown(byId("region-running"), false);
  fail(new Problem({ title: "Cancelled", detail: "The server has deleted the picture.", code: "cancelled" }));
  if (id) await discard(id).catch((error) => fail(asProblem(error)));
}

async function leave() {
  const id = current?.id;
  running.abort();
  closeResult();
  current = null;
  if (id) await discard(id).catch(() => {}); // already gone, or the server is
}

function fail(problem) {
  const actions = current?.file ? [button("Try again", () => openRegion(current))] : [];
  showProblem(byId("region-problem"), problem, ...actions);
  if (current?.file) offerAgain(null);
}

function offerAgain(job) {
  shown(byId("again"), Boolean(current?.file));
  byId("again-mpp").value = job?.summary.mpp ?? current?.mpp ?? "";
}
