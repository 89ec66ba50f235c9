// Colours of probabilities: blue, pale, red, as in the figures of `ductal slide` (Matplotlib's RdYlBu, turned round;
// Brewer 2002), readable for the colour-blind.

const STOPS = [
  "313695",
  "4575b4",
  "74add1",
  "abd9e9",
  "e0f3f8",
  "ffffbf",
  "fee090",
  "fdae61",
  "f46d43",
  "d73027",
  "a50026",
].map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));

export const OUTLINE = "#00e5ff"; // neither tissue nor ink has it
export const OUTLINE_EDGE = "#1a1a1a";

/** Red, green, blue of a probability. */
export function heatColour(value) {
  const place = Math.min(Math.max(value, 0), 1) * (STOPS.length - 1);
  const low = Math.min(Math.floor(place), STOPS.length - 2);
  return STOPS[low].map((part, at) => Math.round(part + (place - low) * (STOPS[low + 1][at] - part)));
}

/** A canvas with a pixel a tile; transparent where nothing was judged, or below `lowest`. */
export function drawTiles(grid, lowest = 0) {
  const canvas = new OffscreenCanvas(grid.columns, grid.rows);
  const context = canvas.getContext("2d");
  const image = context.createImageData(grid.columns, grid.rows);
  grid.probabilities.forEach((value, at) => {
    if (value === null || value < lowest) return;
    image.data.set([...heatColour(value), 255], 4 * at);
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

/** The ramp under the picture. */
export function drawLegend(canvas) {
  const context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x += 1) {
    context.fillStyle = `rgb(${heatColour(x / (canvas.width - 1)).join(" ")})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
}
