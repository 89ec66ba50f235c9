// The table of many patches: sorted by a column, filtered, shown in parts so that thousands stay quick.

import { byId, el, fill, shown } from "./dom.js";
import { CALLS, counted, percent } from "./format.js";
import { callMark } from "./scale.js";

const PART = 100; // rows drawn at a time
const LAST = -1; // where rows without a value go, whichever way it is sorted

const COLUMNS = [
  { key: "name", title: "Picture", of: (row) => row.name },
  { key: "probability", title: "Probability", of: (row) => row.found?.probability ?? LAST, down: true },
  { key: "call", title: "Call", of: (row) => row.found?.call ?? LAST },
  { key: "agree", title: "Views that agree", of: (row) => row.found?.d4?.agree ?? LAST, wide: true },
  { key: "spread", title: "Range of the views", of: spread, wide: true, down: true },
  { key: "warnings", title: "Warnings", of: (row) => row.found?.warnings.length ?? LAST, wide: true, down: true },
];

const order = { key: null, down: false };
let limit = PART;
let rows = [];
let open = () => {};

/** Make the head, and listen. `onOpen(row)` is called for the row that the user opens. */
export function prepareTable(onOpen) {
  open = onOpen;
  fill(
    byId("batch-head"),
    ...COLUMNS.map((column) =>
      el(
        "th",
        { scope: "col", class: column.wide ? "wide-only" : "", "data-key": column.key },
        el("button", { type: "button", class: "sort", onclick: () => sortBy(column) }, column.title),
      ),
    ),
  );
  for (const input of document.querySelectorAll('input[name="call"]')) input.addEventListener("change", again);
  byId("batch-search").addEventListener("input", again);
  byId("batch-more").addEventListener("click", more);
}

/** Show these rows, or show them anew. */
export function showRows(all) {
  rows = all;
  draw();
}

/** The rows that the filter leaves, in the order shown. */
export function visibleRows() {
  const call = document.querySelector('input[name="call"]:checked').value;
  const part = byId("batch-search").value.trim().toLowerCase();
  const left = rows.filter((row) => matches(row, call) && row.name.toLowerCase().includes(part));
  const column = COLUMNS.find((each) => each.key === order.key);
  return column ? left.sort((first, second) => compare(column, first, second)) : left;
}

function spread(row) {
  return row.found?.d4 ? row.found.d4.highest - row.found.d4.lowest : LAST;
}

function matches(row, call) {
  if (!call) return true;
  if (call === "attention") return Boolean(row.problem) || row.found.warnings.length > 0;
  return row.found?.call === call;
}

function compare(column, first, second) {
  const [one, two] = [column.of(first), column.of(second)];
  if (one === LAST || two === LAST) return (one === LAST) - (two === LAST);
  const way = typeof one === "string" ? one.localeCompare(two, "en", { numeric: true }) : one - two;
  return order.down ? -way : way;
}

function sortBy(column) {
  order.down = order.key === column.key ? !order.down : Boolean(column.down);
  order.key = column.key;
  for (const head of byId("batch-head").children) {
    if (head.dataset.key === order.key) head.setAttribute("aria-sort", order.down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  draw();
}

function again() {
  limit = PART;
  draw();
}

function more() {
  const first = limit;
  limit += PART;
  draw();
  byId("batch-body").children[first]?.querySelector("button")?.focus();
}

function draw() {
  const visible = visibleRows();
  fill(byId("batch-body"), ...visible.slice(0, limit).map(drawRow));
  shown(byId("batch-more"), visible.length > limit);
  byId("batch-shown").textContent = !rows.length
    ? ""
    : visible.length === rows.length
      ? `${counted(rows.length, "picture")}`
      : `${visible.length} of ${counted(rows.length, "picture")}`;
}

function drawRow(row) {
  const { found, problem } = row;
  const name = el(
    "td",
    {},
    el(
      "button",
      { type: "button", class: "table__file", onclick: () => open(row) },
      el("img", { class: "table__thumb", src: row.url, alt: "", loading: "lazy", onerror: blank }),
      el("span", {}, row.name),
    ),
  );
  if (problem) {
    const words = el("span", { class: "call call--problem" }, callMark("problem"), problem.title);
    return el(
      "tr",
      {},
      name,
      el("td", { colspan: 2 }, words, el("p", { class: "hint" }, problem.detail)),
      el("td", { class: "wide-only", colspan: COLUMNS.length - 3 }),
    );
  }
  const call = el("span", { class: `call call--${found.call}` }, callMark(found.call), CALLS[found.call]);
  const { d4, warnings } = found;
  return el(
    "tr",
    {},
    name,
    el("td", {}, meter(found.probability)),
    el("td", {}, call),
    el("td", { class: "wide-only" }, d4 ? `${d4.agree} of 8` : "–"),
    el("td", { class: "wide-only unbroken" }, d4 ? `${percent(d4.lowest)} to ${percent(d4.highest)}` : "–"),
    el("td", { class: "wide-only" }, warnings.length ? warnings.map((each) => each.text).join(" ") : "none"),
  );
}

function meter(value) {
  const bar = el(
    "span",
    { class: "meter__bar", "aria-hidden": "true" },
    el("i", { vars: { at: `${100 * value}%` } }),
  );
  return el("div", { class: "meter" }, el("span", {}, percent(value)), bar);
}

function blank(event) {
  event.target.removeAttribute("src"); // a TIFF: the browser has no picture of it
}
