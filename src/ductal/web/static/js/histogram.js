// How the probabilities of many patches are spread: bars for the eye, a table for the rest.

import { el, fill } from "./dom.js";
import { percent } from "./format.js";

const BINS = 20;
const HEIGHT = 170;
const LEFT = 34;
const FLOOR = 140;
const TALLEST = 112;
const KINDS = ["not_cancer", "unsure", "cancer"]; // from below

/** Counts of probabilities in equal bins; 1 belongs to the last. */
export function binned(values, bins = BINS) {
  const counts = new Array(bins).fill(0);
  for (const value of values) counts[Math.min(Math.floor(value * bins), bins - 1)] += 1;
  return counts;
}

/**
 * Draw bars coloured by the call, the threshold over them, and fill the table.
 *
 * @param {Element} place for the drawing, which becomes as wide as it.
 * @param {Element} table for the numbers.
 * @param {Array<{probability: number, call: string}>} found
 * @param {number} threshold
 */
export function drawHistogram(place, table, found, threshold) {
  const parts = KINDS.map((kind) =>
    binned(found.filter((each) => each.call === kind).map((each) => each.probability)),
  );
  const totals = binned(found.map((each) => each.probability));
  const width = place.clientWidth || 720;
  const label = spoken(totals, found.length);
  fill(
    place,
    el(
      "svg:svg",
      { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, role: "img", "aria-label": label },
      ...bars(parts, totals, width),
      ...axis(Math.max(...totals), width),
      ...mark(threshold, width),
    ),
  );
  fill(table, asTable(totals, parts));
}

/** Stacked: a bin's calls on top of each other. */
function bars(parts, totals, width) {
  const step = (width - LEFT) / BINS;
  const unit = TALLEST / Math.max(...totals, 1);
  return totals.flatMap((_, bin) => {
    let top = FLOOR;
    return KINDS.map((kind, at) => {
      const height = unit * parts[at][bin];
      top -= height;
      return el("svg:rect", { class: `bar--${kind}`, x: LEFT + bin * step + 1.5, y: top, width: step - 3, height });
    }).filter((_, at) => parts[at][bin]);
  });
}

function axis(highest, width) {
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((tick) => {
    const anchor = tick === 0 ? "start" : tick === 1 ? "end" : "middle";
    return words(LEFT + tick * (width - LEFT), FLOOR + 20, `${100 * tick} %`, anchor);
  });
  const counts = [words(LEFT - 8, FLOOR, "0", "end"), words(LEFT - 8, FLOOR - TALLEST + 10, String(highest), "end")];
  return [line(LEFT, FLOOR, width, FLOOR, "axis"), ...ticks, ...counts];
}

function mark(threshold, width) {
  const x = LEFT + threshold * (width - LEFT);
  const anchor = x > width - 90 ? "end" : x < 90 ? "start" : "middle";
  return [line(x, 16, x, FLOOR, "threshold-line"), words(x, 11, `threshold ${percent(threshold)}`, anchor)];
}

function line(x1, y1, x2, y2, name) {
  return el("svg:line", { x1, y1, x2, y2, class: name });
}

function words(x, y, text, anchor) {
  return el("svg:text", { x, y, "text-anchor": anchor }, text);
}

function range(bin) {
  return `${(100 * bin) / BINS} to ${(100 * (bin + 1)) / BINS} %`;
}

function spoken(totals, count) {
  const fullest = totals.indexOf(Math.max(...totals));
  const most = `most, ${totals[fullest]}, from ${range(fullest)}`;
  return `Histogram of ${count} probabilities; ${most}. All are in the table below.`;
}

function asTable(totals, [clear, unsure, cancer]) {
  const head = ["Probability", "Patches", "Not cancer", "Unsure", "Cancer"];
  const rows = totals.map((total, bin) => [range(bin), total, clear[bin], unsure[bin], cancer[bin]]);
  return el(
    "table",
    { class: "plain-table" },
    el("thead", {}, el("tr", {}, ...head.map((name) => el("th", { scope: "col" }, name)))),
    el(
      "tbody",
      {},
      ...rows
        .filter((row) => row[1])
        .map(([name, ...counts]) =>
          el("tr", {}, el("th", { scope: "row" }, name), ...counts.map((count) => el("td", {}, count))),
        ),
    ),
  );
}
