// The scale from 0 to 100 %, with what the model does where: threshold, unsure band, and a patch on it.

import { el } from "./dom.js";
import { percent } from "./format.js";

/** The call's own mark, so that colour is never alone: square, ring, half. */
export function callMark(call) {
  const svg = el("svg:svg", { viewBox: "0 0 16 16", "aria-hidden": "true" });
  if (call === "cancer") svg.append(el("svg:rect", { x: 2, y: 2, width: 12, height: 12, fill: "currentColor" }));
  else if (call === "problem")
    svg.append(el("svg:path", { d: "M3 3 13 13M13 3 3 13", stroke: "currentColor", "stroke-width": 3 }));
  else
    svg.append(el("svg:circle", { cx: 8, cy: 8, r: 5.5, fill: "none", stroke: "currentColor", "stroke-width": 2.5 }));
  if (call === "unsure") svg.append(el("svg:path", { d: "M8 2.5a5.5 5.5 0 0 1 0 11z", fill: "currentColor" }));
  return svg;
}

const at = (value) => `${(100 * value).toFixed(2)}%`;

/**
 * Draw the scale.
 *
 * @param {{threshold: number, abstain: {low: number, high: number}|null}} rule
 * @param {{probability: number, d4?: {lowest: number, highest: number}}|null} found a patch to mark on it.
 */
export function drawScale({ threshold, abstain }, found = null) {
  const vars = { threshold: at(threshold) };
  if (abstain) Object.assign(vars, { low: at(abstain.low), high: at(abstain.high) });
  if (found) vars.at = at(found.probability);
  if (found?.d4) Object.assign(vars, { lowest: at(found.d4.lowest), highest: at(found.d4.highest) });
  return el(
    "div",
    { class: "scale", vars },
    el(
      "div",
      { class: "scale__track", role: "img", "aria-label": spoken({ threshold, abstain }, found) },
      abstain ? el("span", { class: "scale__band" }) : null,
      el("span", { class: "scale__threshold" }),
      el("span", { class: "scale__label" }, `threshold ${percent(threshold)}`),
      found?.d4 ? el("span", { class: "scale__spread" }) : null,
      found ? el("span", { class: "scale__marker" }) : null,
    ),
    el("p", { class: "scale__ends", "aria-hidden": "true" }, el("span", {}, "0 %"), el("span", {}, "100 %")),
    el(
      "p",
      { class: "scale__key", "aria-hidden": "true" },
      key("clear", "not cancer"),
      key("cancer", "cancer"),
      abstain ? key("unsure", `unsure, ${percent(abstain.low)} to ${percent(abstain.high)}: no call`) : null,
    ),
  );
}

function key(kind, words) {
  return el("span", {}, el("i", { class: `key-${kind}` }), words);
}

function spoken({ threshold, abstain }, found) {
  const parts = [`Scale from 0 to 100 %. Cancer is called from ${percent(threshold)} on.`];
  if (abstain) parts.push(`Between ${percent(abstain.low)} and ${percent(abstain.high)} the model is unsure.`);
  if (found) parts.push(`This patch: ${percent(found.probability)}.`);
  return parts.join(" ");
}
