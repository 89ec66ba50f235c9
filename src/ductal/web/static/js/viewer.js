// The picture with its heat map: what is drawn, and where it lies. Moving it is in gestures.js.

import { OUTLINE, OUTLINE_EDGE, drawTiles } from "./heat.js";
import { gateAt, outlines, probabilityAt, roundLength } from "./grid.js";

const CLOSEST = 24; // screen pixels of one picture pixel, at most
const MARGIN = 12; // screen pixels

/** Draws a picture and its grid on a canvas. All places are in picture pixels unless named "screen". */
export class Viewer {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {(tile: {column: number, row: number, probability: number|null}|null) => void} onTile called for the tile
   *   that is pointed at, or null.
   */
  constructor(canvas, onTile) {
    Object.assign(this, { canvas, onTile, picture: null, grid: null, tile: null });
    this.settings = { opacity: 0.5, threshold: 0.5, onlyAbove: false };
    this.place = { scale: 1, x: 0, y: 0 }; // screen = scale * picture + (x, y)
    this.waiting = false;
    new ResizeObserver(() => this.resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** Show another picture (ImageBitmap) with its grid (grid.json). */
  open(picture, grid, settings) {
    Object.assign(this, { picture, grid, tile: null });
    this.set(settings);
    this.resize();
    this.fit();
  }

  /** Change opacity, threshold or what is coloured. */
  set(settings) {
    Object.assign(this.settings, settings);
    if (!this.grid) return;
    const { threshold, onlyAbove } = this.settings;
    this.heat = drawTiles(this.grid, onlyAbove ? threshold : 0);
    this.lines = outlines(this.grid, threshold);
    this.draw();
  }

  get screen() {
    return { width: this.canvas.clientWidth, height: this.canvas.clientHeight };
  }

  resize() {
    const before = this.isFitted();
    const ratio = window.devicePixelRatio;
    const { width, height } = this.screen;
    if (!width || !height) return;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    if (before) this.fit();
    else this.draw();
  }

  fitScale() {
    const { width, height } = this.screen;
    return Math.min((width - 2 * MARGIN) / this.picture.width, (height - 2 * MARGIN) / this.picture.height);
  }

  isFitted() {
    return !this.picture || this.fitted === true;
  }

  fit() {
    if (!this.picture) return;
    const { width, height } = this.screen;
    const scale = this.fitScale();
    this.moveTo({
      scale,
      x: (width - scale * this.picture.width) / 2,
      y: (height - scale * this.picture.height) / 2,
    });
    this.fitted = true;
  }

  /** Zoom by a factor round a point of the screen; by default its middle. */
  zoom(factor, at = { x: this.screen.width / 2, y: this.screen.height / 2 }) {
    if (!this.picture) return;
    const { scale, x, y } = this.place;
    const wanted = Math.min(Math.max(scale * factor, this.fitScale()), Math.max(CLOSEST, this.fitScale()));
    if (wanted <= this.fitScale()) {
      this.fit();
      return;
    }
    const ratio = wanted / scale;
    this.moveTo({ scale: wanted, x: at.x - ratio * (at.x - x), y: at.y - ratio * (at.y - y) });
  }

  pan(dx, dy) {
    if (this.picture) this.moveTo({ ...this.place, x: this.place.x + dx, y: this.place.y + dy });
  }

  /** Bring a box, in tiles, into the middle, with some of its surroundings. */
  show([left, top, right, bottom]) {
    const { width, height } = this.screen;
    const [x0, y0] = this.cornerOf(left, top);
    const [x1, y1] = this.cornerOf(right, bottom);
    const closest = Math.min(width / (x1 - x0), height / (y1 - y0)) / 2;
    const scale = Math.min(Math.max(closest, this.fitScale()), CLOSEST);
    this.moveTo({ scale, x: width / 2 - (scale * (x0 + x1)) / 2, y: height / 2 - (scale * (y0 + y1)) / 2 });
  }

  /** Keeps at least a part of the picture on the screen. */
  moveTo({ scale, x, y }) {
    const { width, height } = this.screen;
    const kept = (at, size, room) => Math.min(Math.max(at, room / 4 - size), (3 * room) / 4);
    this.place = {
      scale,
      x: kept(x, scale * this.picture.width, width),
      y: kept(y, scale * this.picture.height, height),
    };
    this.fitted = false;
    // At rest a finger scrolls the page; once zoomed in, it moves the picture.
    this.canvas.style.touchAction = scale > 1.001 * this.fitScale() ? "none" : "pan-y";
    this.draw();
  }

  /** Upper left corner of a tile. */
  cornerOf(column, row) {
    const { x0, y0, x1, y1 } = this.grid.extent;
    return [x0 + (column * (x1 - x0)) / this.grid.columns, y0 + (row * (y1 - y0)) / this.grid.rows];
  }

  /** Point at the tile under a point of the screen; null points at none. */
  pointAt(at) {
    if (!this.grid) return;
    if (!at) {
      this.select(null);
      return;
    }
    const { x0, y0, x1, y1 } = this.grid.extent;
    const { scale, x, y } = this.place;
    const column = Math.floor((((at.x - x) / scale - x0) / (x1 - x0)) * this.grid.columns);
    const row = Math.floor((((at.y - y) / scale - y0) / (y1 - y0)) * this.grid.rows);
    const inside = column >= 0 && row >= 0 && column < this.grid.columns && row < this.grid.rows;
    this.select(inside ? { column, row } : null);
  }

  /** Go from the tile pointed at to its neighbour, and keep it in sight. */
  step(columns, rows) {
    if (!this.grid) return;
    const { columns: wide, rows: high } = this.grid;
    const from = this.tile;
    if (!from) this.pointAt({ x: this.screen.width / 2, y: this.screen.height / 2 });
    const now = from ? { column: from.column + columns, row: from.row + rows } : this.tile;
    const { column, row } = now ?? { column: wide >> 1, row: high >> 1 };
    this.select({ column: Math.min(Math.max(column, 0), wide - 1), row: Math.min(Math.max(row, 0), high - 1) });
    this.keepInSight();
  }

  keepInSight() {
    const { scale, x, y } = this.place;
    const [left, top] = this.cornerOf(this.tile.column, this.tile.row).map((at, way) => scale * at + (way ? y : x));
    const [right, bottom] = this.cornerOf(this.tile.column + 1, this.tile.row + 1).map(
      (at, way) => scale * at + (way ? y : x),
    );
    const { width, height } = this.screen;
    const dx = Math.max(MARGIN - left, 0) + Math.min(width - MARGIN - right, 0);
    const dy = Math.max(MARGIN - top, 0) + Math.min(height - MARGIN - bottom, 0);
    if (dx || dy) this.pan(dx, dy);
  }

  select(tile) {
    if (tile?.column === this.tile?.column && tile?.row === this.tile?.row) return;
    this.tile = tile;
    const { column, row } = tile ?? {};
    this.onTile(
      tile && { ...tile, probability: probabilityAt(this.grid, column, row), gate: gateAt(this.grid, column, row) },
    );
    this.draw();
  }

  /** Draw soon: many changes between two frames cost one drawing. */
  draw() {
    if (this.waiting || !this.picture) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.paint(this.canvas.getContext("2d"), window.devicePixelRatio);
    });
  }

  /** Draw now, on any 2D context. */
  paint(context, ratio) {
    const { width, height } = this.screen;
    const { scale, x, y } = this.place;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = getComputedStyle(this.canvas.parentElement).backgroundColor;
    context.fillRect(0, 0, width, height);
    context.setTransform(ratio * scale, 0, 0, ratio * scale, ratio * x, ratio * y);
    context.imageSmoothingEnabled = scale < 3; // closer, the picture's own pixels are the truth
    context.drawImage(this.picture, 0, 0);
    this.paintTiles(context, scale);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.paintScaleBar(context);
  }

  paintTiles(context, scale) {
    const { x0, y0, x1, y1 } = this.grid.extent;
    const wide = (x1 - x0) / this.grid.columns;
    const high = (y1 - y0) / this.grid.rows;
    context.save();
    context.imageSmoothingEnabled = false;
    context.beginPath();
    context.rect(0, 0, this.picture.width, this.picture.height);
    context.clip();
    context.globalAlpha = this.settings.opacity;
    context.drawImage(this.heat, x0, y0, x1 - x0, y1 - y0);
    context.restore();
    context.beginPath();
    for (const [column, row, toColumn, toRow] of this.lines) {
      context.moveTo(x0 + column * wide, y0 + row * high);
      context.lineTo(x0 + toColumn * wide, y0 + toRow * high);
    }
    context.lineCap = "square";
    for (const [colour, line] of [
      [OUTLINE_EDGE, 4],
      [OUTLINE, 2],
    ]) {
      Object.assign(context, { strokeStyle: colour, lineWidth: line / scale });
      context.stroke();
    }
    if (!this.tile) return;
    const corner = [x0 + this.tile.column * wide, y0 + this.tile.row * high];
    for (const [colour, line] of [
      ["#000000", 5],
      ["#ffffff", 2],
    ]) {
      Object.assign(context, { strokeStyle: colour, lineWidth: line / scale });
      context.strokeRect(...corner, wide, high);
    }
  }

  paintScaleBar(context) {
    const { x0, x1 } = this.grid.extent;
    const { columns, tile_px: side, mpp } = this.grid;
    const um = (columns * side * mpp) / (x1 - x0) / this.place.scale; // a screen pixel
    const length = roundLength(um * 160);
    const text = length >= 1000 ? `${length / 1000} mm` : `${length} µm`;
    const wide = length / um;
    const { height } = this.screen;
    context.fillStyle = "rgb(255 255 255 / 88%)";
    context.fillRect(MARGIN, height - MARGIN - 34, wide + 20, 34);
    context.fillStyle = "#000";
    context.fillRect(MARGIN + 10, height - MARGIN - 11, wide, 4);
    context.font = "13px system-ui, sans-serif";
    context.textAlign = "center";
    context.fillText(text, MARGIN + 10 + wide / 2, height - MARGIN - 16);
  }
}
