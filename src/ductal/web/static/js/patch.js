// One patch: its picture, what the model says of it, where it looked, and whether turning it changes that.

import { asProblem, ask, askJson, formOf } from "./api.js";
import { announce, byId, el, fill, showProblem, shown } from "./dom.js";
import { CALLS, HEADINGS, percent } from "./format.js";
import { callMark, drawScale } from "./scale.js";

const TURNS = ["as it is", "turned 90°", "turned 180°", "turned 270°"];
const VIEWS = [...TURNS, ...TURNS.map((turn, at) => (at ? `mirrored, ${turn}` : "mirrored"))];
let picture = ""; // address of what is shown
let running = new AbortController();

/** Listen to what the view holds. */
export function preparePatch() {
  byId("map-opacity").addEventListener("input", setOpacity);
  byId("patch-image").addEventListener("error", () => showPicture(""));
}

/**
 * Show a patch and ask the server about it.
 *
 * @param {{file: Blob, name: string, truth?: string|null, known?: object, fromBatch?: boolean}} patch `known` is its
 *   prediction, where a batch had it.
 * @param {(problem: object) => void} notAPatch called when the server says that the picture is larger than a patch.
 */
export async function openPatch({ file, name, truth = null, known = null, fromBatch = false }, notAPatch) {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  reset(name, fromBatch);
  showPicture(URL.createObjectURL(file));
  try {
    const found =
      known ?? (await askJson("predict?views=true", { method: "POST", body: formOf(file, name), signal }));
    showResult(found, truth);
    await explain(file, name, signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    const problem = asProblem(error);
    shown(byId("patch-wait"), false);
    if (problem.code === "not_a_patch") notAPatch(problem);
    else showFailure(problem);
  }
}

function reset(name, fromBatch) {
  byId("patch-name").textContent = name;
  byId("patch-title").textContent = "Classifying …";
  byId("patch-title").className = "";
  byId("map-words").textContent = "";
  shown(byId("patch-back"), fromBatch);
  shown(byId("patch-wait"), true);
  for (const id of ["patch-done", "map-controls", "patch-map"]) shown(byId(id), false);
  showProblem(byId("patch-problem"), null);
}

function showPicture(url) {
  if (picture) URL.revokeObjectURL(picture);
  picture = url;
  const image = byId("patch-image");
  shown(image, Boolean(url));
  shown(byId("patch-no-image"), !url);
  if (url) image.src = url;
  image.alt = url ? `The patch ${byId("patch-name").textContent}, enlarged` : "";
  for (const view of document.querySelectorAll("#d4-views img")) view.src = url || "data:,";
}

function showFailure(problem) {
  byId("patch-title").textContent = "No result";
  showProblem(byId("patch-problem"), problem);
}

function showResult(found, truth) {
  shown(byId("patch-wait"), false);
  shown(byId("patch-done"), true);
  const title = byId("patch-title");
  title.className = `call call--${found.call}`;
  fill(title, callMark(found.call), HEADINGS[found.call]);
  byId("patch-number").textContent = percent(found.probability);
  byId("patch-words").textContent = found.words;
  fill(byId("patch-warnings"), ...found.warnings.map(warning));
  fill(byId("patch-scale"), drawScale(found, found));
  showTruth(found, truth);
  showViews(found);
  announce(
    `${HEADINGS[found.call]}. ${percent(found.probability)}. ${found.warnings.map((each) => each.text).join(" ")}`,
  );
}

/** A warning, said to be one. */
export function warning({ code, text }) {
  const sentence = text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
  return el("li", { "data-code": code }, el("strong", {}, "Warning. "), sentence);
}

function showTruth(found, truth) {
  const place = byId("patch-truth");
  shown(place, Boolean(truth));
  if (!truth) return;
  const compared =
    found.call === "unsure" ? "" : found.call === truth ? " The call agrees." : " The call does not agree.";
  place.textContent = `Its label is: ${CALLS[truth].toLowerCase()}.${compared}`;
}

function showViews({ d4, threshold, probability }) {
  const section = byId("d4-title").parentElement;
  shown(section, Boolean(d4));
  if (!d4) return;
  const side = probability >= threshold;
  const words =
    d4.agree === 8
      ? "All 8 views lie on the same side of the threshold"
      : `${d4.agree} of 8 views lie on the same side of the threshold as the result`;
  byId("d4-words").textContent =
    `${words}: from ${percent(d4.lowest)} to ${percent(d4.highest)}. ` +
    "Tissue has no up or down, so a firm answer does not depend on how the patch lies.";
  fill(
    byId("d4-views"),
    ...d4.views.map((value, at) => {
      const differs = value >= threshold !== side;
      return el(
        "li",
        { class: differs ? "differs" : "" },
        el("img", { class: `turn-${at}`, src: picture || "data:,", alt: VIEWS[at] }),
        el("span", {}, percent(value)),
        differs ? el("span", { class: "d4__note" }, "differs") : null,
      );
    }),
  );
}

async function explain(file, name, signal) {
  const words = byId("map-words");
  words.textContent = "Working out where the network looked …";
  try {
    const answer = await ask("explain", { method: "POST", body: formOf(file, name), signal });
    await showMap(await answer.json());
  } catch (error) {
    if (error.name === "AbortError") throw error;
    words.textContent = `No map of where the network looked: ${asProblem(error).detail || error.title}`;
  }
}

async function showMap({ map_png: map, patch_png: seen, explains, empty }) {
  if (!picture && seen) showPicture(URL.createObjectURL(decoded(seen)));
  const words = byId("map-words");
  if (empty) {
    words.textContent = "Nothing in the patch stands out as speaking for the call.";
    return;
  }
  const overlay = byId("patch-map");
  overlay.src = `data:image/png;base64,${map}`;
  await overlay.decode();
  shown(overlay, true);
  shown(byId("map-controls"), true);
  setOpacity();
  words.textContent =
    `Grad-CAM: what speaks for “${CALLS[explains].toLowerCase()}”, each patch on its own scale. ` +
    "It is coarse, and shows what the network used, not what is there.";
}

/** Bytes of a base64 text, as a PNG. */
function decoded(text) {
  return new Blob([Uint8Array.from(atob(text), (character) => character.charCodeAt(0))], { type: "image/png" });
}

function setOpacity() {
  const value = Number(byId("map-opacity").value);
  byId("patch-map").style.opacity = String(value / 100);
  byId("map-opacity-value").textContent = `${value} %`;
}

/** Whether there is a patch to show. */
export function hasPatch() {
  return byId("patch-name").textContent !== "";
}
