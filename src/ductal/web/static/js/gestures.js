// Mouse, touch and keys of the viewer.

const STEP = 60; // screen pixels an arrow key moves
const FACTOR = 1.3; // of one zoom by key or button

/** Move and zoom a Viewer by wheel, drag, pinch and keys. */
export function listen(viewer) {
  const { canvas } = viewer;
  const fingers = new Map();
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1;
      viewer.zoom(Math.exp(-event.deltaY * lines * 0.0015), place(event));
    },
    { passive: false },
  );
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, place(event));
    if (event.pointerType !== "mouse") viewer.pointAt(place(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = place(event);
    const before = fingers.get(event.pointerId);
    if (!before) {
      viewer.pointAt(now);
      return;
    }
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) pinch(viewer, before, now, other);
    else viewer.pan(now.x - before.x, now.y - before.y);
    fingers.set(event.pointerId, now);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => fingers.delete(event.pointerId));
  }
  canvas.addEventListener("pointerleave", () => fingers.size || viewer.pointAt(null));
  canvas.addEventListener("dblclick", (event) => viewer.zoom(2, place(event)));
  canvas.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.altKey && press(viewer, event)) event.preventDefault();
  });
}

function pinch(viewer, before, now, other) {
  const length = (point) => Math.max(Math.hypot(point.x - other.x, point.y - other.y), 1);
  viewer.pan((now.x - before.x) / 2, (now.y - before.y) / 2);
  viewer.zoom(length(now) / length(before), { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** True when the key meant something. */
function press(viewer, { key, shiftKey }) {
  const arrow = ARROWS[key];
  if (arrow && shiftKey) viewer.step(...arrow);
  else if (arrow) viewer.pan(-STEP * arrow[0], -STEP * arrow[1]);
  else if (key === "+" || key === "=") viewer.zoom(FACTOR);
  else if (key === "-" || key === "_") viewer.zoom(1 / FACTOR);
  else if (key === "0") viewer.fit();
  else return false;
  return true;
}

/** The buttons beside the picture. */
export function listenButtons(viewer, { zoomIn, zoomOut, fit }) {
  zoomIn.addEventListener("click", () => viewer.zoom(FACTOR));
  zoomOut.addEventListener("click", () => viewer.zoom(1 / FACTOR));
  fit.addEventListener("click", () => viewer.fit());
}
