// What was found in a region or slide: the picture with its heat map, areas at a threshold, downloads.

import { announce, button, byId, el, fill, save, shown, stem } from "./dom.js";
import { asProblem } from "./api.js";
import { area, counted, percent, share } from "./format.js";
import { listen, listenButtons } from "./gestures.js";
import { areas, regions } from "./grid.js";
import { drawLegend } from "./heat.js";
import { resultOf } from "./job.js";
import { warning } from "./patch.js";
import { asSeen } from "./snapshot.js";
import { Viewer } from "./viewer.js";

const LISTED = 6; // regions
let viewer = null;
let shownJob = null;
let grid = null;
let late = 0;

/** Listen. */
export function prepareResult() {
  viewer = new Viewer(byId("canvas"), read);
  listen(viewer);
  listenButtons(viewer, { zoomIn: byId("zoom-in"), zoomOut: byId("zoom-out"), fit: byId("zoom-fit") });
  drawLegend(byId("legend-bar"));
  byId("canvas").addEventListener("keydown", () => byId("reading").setAttribute("aria-live", "polite"));
  byId("canvas").addEventListener("pointermove", () => byId("reading").setAttribute("aria-live", "off"));
  byId("threshold").addEventListener("input", () => setThreshold(byId("threshold").value / 100));
  byId("opacity").addEventListener("input", setOpacity);
  byId("only-above").addEventListener("change", (event) => viewer.set({ onlyAbove: event.target.checked }));
  byId("get-csv").addEventListener("click", () => download("probabilities.csv", "-tiles.csv"));
  byId("get-geojson").addEventListener("click", () => {
    const { threshold } = viewer.settings;
    download(`regions.geojson?threshold=${threshold}`, `-threshold-${Number(threshold.toFixed(4))}.geojson`);
  });
  byId("get-png").addEventListener("click", async () => {
    const words = `${shownJob.name} · ${byId("region-area").textContent} ${byId("region-share").textContent}`;
    save(await asSeen(viewer, words), `${stem(shownJob.name)}-heatmap.png`);
    byId("download-note").textContent = "Saved what the picture shows.";
  });
}

/**
 * Show a job that is done.
 *
 * @throws {Problem} when a part of the result cannot be had.
 */
export async function openResult(job, signal) {
  const [found, picture] = await Promise.all([
    resultOf(job.id, "grid.json", signal).then((response) => response.json()),
    resultOf(job.id, "thumbnail.png", signal)
      .then((response) => response.blob())
      .then(createImageBitmap),
  ]);
  if (signal.aborted) return;
  [shownJob, grid] = [job, found];
  shown(byId("region-done"), true);
  fill(byId("region-warnings"), ...job.warnings.map(warning));
  facts(job.summary);
  byId("download-note").textContent = "";
  const start = job.summary.threshold;
  byId("threshold").value = String(Math.round(100 * start));
  byId("threshold-note").textContent =
    `The run's own threshold here is ${percent(start)}. Moving it is for looking, not for a better model.`;
  viewer.open(picture, grid, { opacity: byId("opacity").value / 100, threshold: start });
  setThreshold(start);
  announce(`Done. ${byId("region-area").textContent} ${byId("region-share").textContent}`);
}

/** Let go of what is shown. */
export function closeResult() {
  [shownJob, grid] = [null, null];
  byId("reading").textContent = "";
}

function setThreshold(value) {
  const { judged, above } = areas(grid, value);
  const called = `called cancer, in tiles at or above ${percent(value)}`;
  const words = judged && `${called}: ${share(above / judged)} of the ${area(judged)} judged`;
  byId("threshold-value").textContent = percent(value);
  byId("region-area").textContent = area(above);
  byId("region-share").textContent = words || "Nothing was judged: there is no tissue that the model can read.";
  byId("threshold").setAttribute("aria-valuetext", `${percent(value)}: ${area(above)} above`);
  viewer.set({ threshold: value });
  clearTimeout(late);
  late = setTimeout(listRegions, 60, value); // while the slider moves, the list would only flicker
}

function setOpacity() {
  const value = Number(byId("opacity").value);
  byId("opacity-value").textContent = `${value} %`;
  viewer.set({ opacity: value / 100 });
}

function listRegions(value) {
  if (!grid) return;
  const found = regions(grid, value);
  if (!found.length) {
    fill(byId("found"), el("p", { class: "hint" }, "No tile reaches this threshold."));
    return;
  }
  const items = found.slice(0, LISTED).map((region) => {
    const numbers = `mean ${percent(region.mean)}, highest ${percent(region.highest)}`;
    const go = () => viewer.show(region.box);
    const words = [
      el("span", {}, el("strong", {}, area(region.mm2))),
      el("span", { class: "found__place" }, numbers),
    ];
    return el("li", {}, el("button", { type: "button", class: "found__button", onclick: go }, ...words));
  });
  const rest = found.length - items.length;
  fill(
    byId("found"),
    el("p", { class: "hint" }, `${counted(found.length, "area")}; choose one to look at it.`),
    el("ol", { class: "found" }, ...items),
    rest ? el("p", { class: "hint" }, `and ${counted(rest, "smaller one")}`) : null,
  );
}

function read(tile) {
  const words = byId("reading");
  if (!tile) {
    words.textContent = "";
    return;
  }
  const place = `Column ${tile.column + 1}, row ${tile.row + 1}: `;
  if (tile.probability === null) words.textContent = `${place}not judged (${tile.gate})`;
  else {
    const side = tile.probability >= viewer.settings.threshold ? "above" : "below";
    words.textContent = `${place}${percent(tile.probability)}, ${side} the threshold`;
  }
}

const SPACINGS = { file: "as the file says", user: "as you said", model: "assumed: the model's own" };

function facts({
  tissue_area_mm2: tissue,
  width_px: width,
  height_px: height,
  mpp,
  mpp_from: from,
  tile_um: tile,
  track,
}) {
  const rows = [
    ["All tissue", area(tissue)],
    ["Picture", `${width.toLocaleString("en")} × ${height.toLocaleString("en")} pixels`],
    ["Scale", `${Number(mpp.toPrecision(3))} µm a pixel, ${SPACINGS[from]}`],
    ["A tile", `${Number(tile.toPrecision(3))} µm wide`],
    ["Judged by", track === "patch-only" ? "each tile alone" : "each tile with its neighbours"],
  ];
  fill(byId("region-facts"), ...rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

async function download(name, ending) {
  const note = byId("download-note");
  note.textContent = "Fetching …";
  try {
    const response = await resultOf(shownJob.id, name);
    save(await response.blob(), stem(shownJob.name) + ending);
    note.textContent = "Saved.";
  } catch (error) {
    const problem = asProblem(error);
    fill(
      note,
      `${problem.title}. ${problem.detail} `,
      button("Try again", () => download(name, ending)),
    );
  }
}
