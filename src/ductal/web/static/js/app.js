// The page that classifies: what comes in goes to one of three views, and the address says which is shown.

import { Problem, asProblem, askJson, whenReady } from "./api.js";
import { hasBatch, openBatch, prepareBatch } from "./batch.js";
import { announce, button, byId, el, fill, showProblem, shown } from "./dom.js";
import { kindOf, prepareFiles } from "./files.js";
import { bytes } from "./format.js";
import { hasPatch, openPatch, preparePatch } from "./patch.js";
import { hasRegion, openRegion, prepareRegion, resumable, resumeRegion } from "./region.js";
import { showSamples } from "./samples.js";

const VIEWS = {
  start: { title: "Classify", has: () => true },
  patch: { title: "A patch", has: hasPatch },
  batch: { title: "Patches", has: hasBatch },
  region: { title: "A region", has: hasRegion },
};
let limits = {};
let current = "start";

/** What the address says was changed by a link or the browser's buttons; the start when there is nothing to show. */
function route() {
  const wanted = location.hash.slice(1);
  if (wanted && !(wanted in VIEWS)) return; // the link that skips to the content
  const name = VIEWS[wanted]?.has() ? wanted : "start";
  if (name !== current) show(name); // else the event is late, and the focus may have moved on
}

function show(name) {
  current = name;
  for (const each of Object.keys(VIEWS)) shown(byId(`view-${each}`), each === name);
  document.title = `${VIEWS[name].title} · ductal`;
  window.scrollTo(0, 0);
  byId(`${name}-title`).focus({ preventScroll: true });
}

function go(name) {
  location.hash = name; // the browser's back button then leads back
  show(name);
}

/** Files that the user gave. */
async function take(files) {
  showProblem(byId("start-problem"), null);
  const named = files.map((file) => ({ file, name: file.name || "pasted.png" }));
  if (named.length > 1) {
    batch(named);
    return;
  }
  const [one] = named;
  if (one.file.size > (limits.slide_bytes ?? Infinity)) {
    const detail = `${one.name} has ${bytes(one.file.size)}; this server takes at most ${bytes(limits.slide_bytes)}.`;
    fail(new Problem({ title: "The file is too large", detail, code: "too_large" }));
  } else if ((await kindOf(one.file)) === "patch") patch(one);
  else region(one);
}

function patch(one) {
  openPatch(one, () => region(one));
  go("patch");
}

function region(one) {
  openRegion(one);
  go("region");
}

function batch(named) {
  openBatch(named, limits);
  go("batch");
}

function openRow({ file, name, truth, found, problem }) {
  if (problem?.code === "not_a_patch") region({ file, name });
  else patch({ file, name, truth, known: found, fromBatch: true });
}

function fail(problem) {
  go("start");
  showProblem(byId("start-problem"), problem);
}

/** What the picture must be, as this server and model say. */
function showNeeds({ input, limits: told, trained_on: trained, context }) {
  byId("needs-patch").textContent =
    `${input.patch_px} × ${input.patch_px} pixels` +
    (input.spacing_um
      ? `, about ${input.spacing_um} µm a pixel: ${Math.round(input.patch_px * input.spacing_um)} µm of tissue`
      : "");
  const formats = (list) => list.join(", ");
  byId("needs-region").textContent = `Any larger picture; it is cut into patches (${formats(told.slide_formats)})`;
  byId("needs-limits").textContent =
    `A patch as ${formats(told.patch_formats)}; a region or slide up to ${bytes(told.slide_bytes)}`;
  byId("needs-text").textContent = input.spacing_assumed
    ? `The scale of the training patches is not recorded; ${input.spacing_um} µm a pixel is assumed.`
    : "";
  shown(byId("synthetic-notice"), trained.synthetic);
  shown(byId("again-context-row"), context);
}

async function offerResume() {
  const kept = await resumable();
  if (!kept) return;
  const place = byId("resume");
  const open = () => {
    shown(place, false);
    resumeRegion(kept);
    go("region");
  };
  fill(place, el("span", {}, `The result of ${kept.name} is still here.`), button("Open it", open));
  shown(place, true);
}

async function start() {
  preparePatch();
  prepareBatch(openRow);
  prepareRegion();
  prepareFiles(take);
  window.addEventListener("hashchange", route);
  if (location.hash) history.replaceState(null, "", location.pathname);
  try {
    await whenReady(() => shown(byId("start-wait"), true));
    shown(byId("start-wait"), false);
    const model = await askJson("model");
    limits = model.limits;
    showNeeds(model);
    const onSample = ({ name, kind, label, spacing_um: mpp }, file) => {
      if (kind === "region") region({ file, name, mpp });
      else patch({ file, name, truth: label });
    };
    await showSamples(await askJson("samples"), onSample, batch);
    await offerResume();
    document.body.dataset.ready = "true";
  } catch (error) {
    shown(byId("start-wait"), false);
    const problem = asProblem(error);
    announce(problem.title);
    showProblem(
      byId("start-problem"),
      problem,
      button("Try again", () => location.reload()),
    );
  }
}

start();
