// The page about the model: what it is, how it decides, how well, and what it cannot do.

import { asProblem, askJson, askPicture, pathOf, whenReady } from "./api.js";
import { button, byId, el, fill, showProblem, shown } from "./dom.js";
import { counted, percent, share } from "./format.js";
import { drawScale } from "./scale.js";

function facts({ input, calibration, threshold, threshold_rule: rule, abstain, trained_on: trained, ...model }) {
  const spacing = input.spacing_um ? `, about ${input.spacing_um} µm a pixel` : "";
  return [
    ["Input", `${input.stain} patches of ${input.patch_px} × ${input.patch_px} pixels${spacing}`],
    ["Threshold", `${percent(threshold)}${rule ? `: ${rule}` : ""}`],
    ["No call", abstain ? model.abstain_rule : "never: the run has no such limits"],
    ["Calibration", calibration.fitted_on],
    ["Networks", model.ensemble_members > 1 ? counted(model.ensemble_members, "network") + ", averaged" : "one"],
    ["Turned and mirrored", model.d4 ? "averaged over the 8 views" : "shown beside the result, not averaged"],
    ["Neighbours", model.context ? "refine the tiles of a region or slide" : "not used"],
    [
      "Trained on",
      `${number(trained.patches, "patch", "patches")} of ${number(trained.patients, "patient")}` +
        (trained.prevalence ? `, ${share(trained.prevalence)} cancer` : "") +
        (trained.synthetic ? " (synthetic)" : ""),
    ],
    ["Division", trained.split],
    ["Computed with", `${model.engine}; ${model.track}`],
  ];
}

/** A count, or that the run does not say. */
function number(count, one, many) {
  return count === null ? `an unknown number of ${many ?? `${one}s`}` : counted(count, one, many);
}

function rowOfFacts([name, value]) {
  return el("div", {}, el("dt", {}, name), el("dd", {}, value));
}

/** Metrics of one part of the patients, with intervals as numbers and lines. */
function metricsTable(part, metrics) {
  const some = metrics.some(hasInterval);
  const head = some ? ["Measure", "Value", "95 % interval", ""] : ["Measure", "Value"];
  return el(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": `Measures on ${part}` },
    el(
      "table",
      { class: "plain-table" },
      el("caption", { class: "unseen" }, `Measures on ${part}`),
      el("thead", {}, el("tr", {}, ...head.map((name) => (name ? el("th", { scope: "col" }, name) : el("td", {}))))),
      el("tbody", {}, ...metrics.map((each) => metricRow(each, some))),
    ),
  );
}

function hasInterval({ low, high }) {
  return low !== null && high !== null;
}

function metricRow({ title, means, value, low, high }, some) {
  const has = hasInterval({ low, high });
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, title, el("span", { class: "means" }, means)),
    el("td", {}, value === null ? "–" : value.toFixed(3)),
    some ? el("td", {}, has ? `${low.toFixed(3)} to ${high.toFixed(3)}` : "none") : null,
    some ? el("td", { class: "wide-only" }, has && low >= 0 && high <= 1 ? interval(value, low, high) : "") : null,
  );
}

function interval(value, low, high) {
  const place = (number) => 2 + 196 * number;
  return el(
    "svg:svg",
    { class: "interval", viewBox: "0 0 200 20", preserveAspectRatio: "none", "aria-hidden": "true" },
    el("svg:line", { class: "interval__rail", x1: 2, x2: 198, y1: 10, y2: 10 }),
    el("svg:line", { class: "interval__range", x1: place(low), x2: place(high), y1: 10, y2: 10 }),
    el("svg:circle", { class: "interval__point", cx: place(value), cy: 10, r: 5 }),
  );
}

function showMetrics(metrics) {
  const place = byId("model-metrics");
  if (!metrics.length) {
    fill(place, el("p", { class: "hint" }, "This run was not evaluated: ductal evaluate does it."));
    return;
  }
  const parts = [...new Set(metrics.map((each) => each.part))];
  fill(
    place,
    ...parts.flatMap((part) => [
      el("h3", {}, `On ${part} patients`),
      metrics.some(hasInterval) ? null : el("p", { class: "hint" }, "Too few patients for intervals."),
      metricsTable(
        part,
        metrics.filter((each) => each.part === part),
      ),
    ]),
  );
}

async function showFigures(figures) {
  shown(byId("figures-section"), figures.length > 0);
  const made = figures.map((figure) => {
    const image = el("img", { alt: figure.title });
    const open = () => enlarge(figure, image.src);
    const control = el("button", { type: "button", "aria-label": `Enlarge: ${figure.title}`, onclick: open }, image);
    const words = el("figcaption", {}, el("strong", {}, figure.title), figure.caption);
    return { figure, image, node: el("figure", {}, control, words) };
  });
  fill(byId("model-figures"), ...made.map(({ node }) => node));
  for (const { figure, image } of made) image.src = await askPicture(pathOf(figure.url));
}

function enlarge({ title, caption }, source) {
  byId("figure-dialog-title").textContent = title;
  byId("figure-caption").textContent = caption;
  byId("figure-large").src = source;
  byId("figure-large").alt = title;
  byId("figure-dialog").showModal();
}

async function showCard() {
  const { html } = await askJson("model/card");
  const card = byId("model-card");
  card.innerHTML = html; // made by the server from Markdown, raw HTML off
  for (const table of card.querySelectorAll("table")) table.tabIndex = 0; // wide ones scroll, by keys too
}

async function start() {
  byId("figure-close").addEventListener("click", () => byId("figure-dialog").close());
  try {
    await whenReady();
    const model = await askJson("model");
    byId("model-name").textContent = model.name;
    byId("model-title").textContent = model.title;
    shown(byId("synthetic-notice"), model.trained_on.synthetic);
    fill(byId("model-scale"), drawScale(model));
    fill(
      byId("model-facts"),
      ...facts(model)
        .filter(([, value]) => value)
        .map(rowOfFacts),
    );
    for (const [id, texts] of [
      ["model-for", model.intended_use],
      ["model-not-for", model.out_of_scope],
      ["model-limits", model.intended_limits],
    ]) {
      fill(byId(id), ...texts.map((text) => el("li", {}, text)));
    }
    showMetrics(model.metrics);
    shown(byId("model-done"), true);
    shown(byId("model-wait"), false);
    await Promise.all([showFigures(model.figures), showCard()]);
    document.body.dataset.ready = "true";
  } catch (error) {
    shown(byId("model-wait"), false);
    showProblem(
      byId("model-problem"),
      asProblem(error),
      button("Try again", () => location.reload()),
    );
  }
}

start();
