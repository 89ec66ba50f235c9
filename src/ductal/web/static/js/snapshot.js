// What the viewer shows, as a PNG with a line under it that says what it is.

const FOOT = 44; // screen pixels
const NOTE = "Research use only, no diagnosis · ductal";

/**
 * @param {Viewer} viewer
 * @param {string} words what was found, at which threshold.
 * @returns {Promise<Blob>} the picture at the screen's own resolution.
 */
export async function asSeen(viewer, words) {
  const { width, height } = viewer.screen;
  const ratio = window.devicePixelRatio;
  const canvas = new OffscreenCanvas(Math.round(width * ratio), Math.round((height + FOOT) * ratio));
  const context = canvas.getContext("2d");
  viewer.paint(context, ratio);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.fillStyle = "#ffffff";
  context.fillRect(0, height, width, FOOT);
  context.textAlign = "left";
  context.font = "13px system-ui, sans-serif";
  context.fillStyle = "#16212a";
  context.fillText(words, 12, height + 18, width - 24);
  context.fillStyle = "#51606b";
  context.fillText(NOTE, 12, height + 36, width - 24);
  return canvas.convertToBlob({ type: "image/png" });
}
