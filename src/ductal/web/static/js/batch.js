// Many patches: sent in parts, so that results come in and the rest can be cancelled.

import { Problem, asProblem, askJson } from "./api.js";
import { prepareTable, showRows, visibleRows } from "./batch-table.js";
import { asCsv } from "./csv.js";
import { announce, byId, el, fill, save, showProblem, shown } from "./dom.js";
import { CALLS, bytes, counted } from "./format.js";
import { drawHistogram } from "./histogram.js";
import { callMark } from "./scale.js";

const PART = 32; // files in a request
let rows = [];
let wanted = 0; // pictures of this batch
let running = new AbortController();

/** Listen. `onOpen(row)` opens a row's patch. */
export function prepareBatch(onOpen) {
  prepareTable(onOpen);
  window.addEventListener("resize", showHistogram);
  byId("batch-cancel").addEventListener("click", () => running.abort());
  byId("batch-csv").addEventListener("click", () => {
    save(new Blob([asCsv(visibleRows())], { type: "text/csv" }), "ductal-patches.csv");
  });
}

/** Whether there is a table to show. */
export function hasBatch() {
  return wanted > 0;
}

/**
 * Classify many files.
 *
 * @param {Array<{file: Blob, name: string}>} files
 * @param {object} limits of the server, as /model tells them.
 */
export async function openBatch(files, limits) {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  clear();
  wanted = files.length;
  byId("batch-title").textContent = counted(files.length, "picture");
  shown(byId("batch-running"), true);
  let stopped = null;
  try {
    for (const part of parts(files, limits)) {
      progress(rows.length, files.length);
      rows.push(...(await classify(part, limits, signal)));
      signal.throwIfAborted();
      show();
    }
  } catch (error) {
    if (running.signal !== signal) return; // another batch has taken the place
    stopped = error.name === "AbortError" ? cancelled(rows.length, files.length) : asProblem(error);
  }
  finish(stopped);
}

function clear() {
  for (const row of rows) URL.revokeObjectURL(row.url);
  rows = [];
  showProblem(byId("batch-problem"), null);
  show();
}

/** The files in parts that one request may hold, by count and by bytes. */
function* parts(files, { files: most = PART, batch_bytes: room = 8e6 }) {
  let part = [];
  let size = 0;
  for (const each of files) {
    const full = part.length >= Math.min(most, PART) || (part.length > 0 && size + each.file.size > 0.9 * room);
    if (full) {
      yield part;
      [part, size] = [[], 0];
    }
    part.push(each);
    size += each.file.size;
  }
  if (part.length) yield part;
}

async function classify(part, { batch_bytes: room = Infinity }, signal) {
  const good = part.filter(({ file }) => file.size <= 0.9 * room);
  const form = new FormData();
  for (const { file, name } of good) form.append("files", file, name);
  const { predictions } = good.length
    ? await askJson("predict/batch?views=true", { method: "POST", body: form, signal })
    : { predictions: [] };
  const answers = new Map(good.map((each, at) => [each, predictions[at]]));
  return part.map((each) => {
    const answer = answers.get(each) ?? { problem: tooLarge(each.file, room) };
    const row = { ...each, url: URL.createObjectURL(each.file) };
    return answer.problem
      ? { ...row, found: null, problem: new Problem(answer.problem) }
      : { ...row, found: answer, problem: null };
  });
}

function tooLarge(file, room) {
  const detail = `It has ${bytes(file.size)}; the server takes ${bytes(room)}.`;
  return { title: "The file is too large", detail, code: "too_large" };
}

function cancelled(done, all) {
  return new Problem({
    title: "Cancelled",
    detail: `${done} of ${all} pictures were classified before.`,
    code: "cancelled",
  });
}

function progress(done, all) {
  byId("batch-progress").value = done / all;
  byId("batch-progress-words").textContent = `Classifying: ${done} of ${all}`;
}

function show() {
  const found = rows.filter((row) => row.found).map((row) => row.found);
  fill(byId("batch-counts"), ...counts(found));
  shown(byId("histogram-figure"), found.length > 1);
  showHistogram();
  byId("batch-csv").disabled = rows.length === 0;
  showRows(rows);
}

function showHistogram() {
  const found = rows.filter((row) => row.found).map((row) => row.found);
  if (found.length > 1) drawHistogram(byId("histogram"), byId("histogram-table"), found, found[0].threshold);
}

function counts(found) {
  const numbers = ["cancer", "not_cancer", "unsure"].map((call) => [
    call,
    found.filter((each) => each.call === call).length,
  ]);
  const failed = rows.length - found.length;
  const items = numbers.map(([call, count]) =>
    el("li", {}, el("strong", {}, count), el("span", { class: `call call--${call}` }, callMark(call), CALLS[call])),
  );
  if (failed) {
    const words = el("span", { class: "call call--problem" }, callMark("problem"), "Not classified");
    items.push(el("li", {}, el("strong", {}, failed), words));
  }
  return rows.length ? items : [];
}

function finish(problem) {
  shown(byId("batch-running"), false);
  showProblem(byId("batch-problem"), problem);
  const failed = rows.filter((row) => row.problem).length;
  const calls = (call) => rows.filter((row) => row.found?.call === call).length;
  announce(
    `${problem ? `${problem.title}. ` : ""}${counted(rows.length, "picture")}: ${calls("cancer")} called cancer, ` +
      `${calls("not_cancer")} not cancer, ${calls("unsure")} unsure, ${failed} not classified.`,
  );
}
