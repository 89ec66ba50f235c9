// Sample pictures, so that there is something to click at once.

import { ask, pathOf } from "./api.js";
import { byId, el, fill, shown } from "./dom.js";
import { CALLS } from "./format.js";

const ORIGINS = {
  synthetic: "These pictures were drawn by a program: they show no patient and no tissue.",
  cohort: "From the cohort that the model belongs to.",
};

/**
 * Show the samples.
 *
 * @param {object[]} samples as the server lists them.
 * @param {(sample: object, file: Blob) => void} onSample called with what the user chooses.
 * @param {(patches: Array<{file: Blob, name: string, truth: string|null}>) => void} onAll called for all patches.
 */
export async function showSamples(samples, onSample, onAll) {
  const section = byId("samples").closest("section");
  shown(section, samples.length > 0);
  const origins = [...new Set(samples.map((sample) => sample.origin))];
  byId("samples-origin").textContent = origins.map((origin) => ORIGINS[origin]).join(" ");
  const cards = samples.map((sample) => ({ sample, card: card(sample) }));
  fill(byId("samples"), ...cards.map(({ card: { item } }) => item));
  const files = new Map();
  await Promise.all(
    cards.map(async ({ sample, card: { control, image } }) => {
      const file = await (await ask(pathOf(sample.url))).blob();
      files.set(sample, file);
      image.src = URL.createObjectURL(file); // for as long as the page is open
      control.addEventListener("click", () => onSample(sample, file));
      control.disabled = false;
    }),
  );
  const patches = samples.filter((sample) => sample.kind === "patch");
  shown(byId("samples-all-row"), patches.length > 1);
  byId("samples-all").addEventListener("click", () => {
    onAll(patches.map((sample) => ({ file: files.get(sample), name: sample.name, truth: sample.label })));
  });
}

function card({ title, kind, label, origin }) {
  const image = el("img", { class: `sample__picture sample__picture--${kind}`, alt: "" });
  const about = [
    kind === "region" ? "a region" : null,
    label ? `labelled ${CALLS[label].toLowerCase()}` : null,
    origin === "synthetic" ? "synthetic" : null,
  ];
  const control = el(
    "button",
    { type: "button", class: "sample", disabled: true, "data-kind": kind },
    image,
    el(
      "span",
      {},
      el("span", { class: "sample__title" }, title),
      el("span", { class: "sample__label" }, about.filter(Boolean).join(", ")),
    ),
  );
  return { item: el("li", {}, control), control, image };
}
