// What a threshold makes of a grid of probabilities: areas, connected regions, outlines. No drawing here.

/** One tile's probability; null where nothing was judged or outside the grid. */
export function probabilityAt(grid, column, row) {
  if (column < 0 || row < 0 || column >= grid.columns || row >= grid.rows) return null;
  return grid.probabilities[row * grid.columns + column];
}

/** Why a tile was not judged: glass, pen, fold or blur. */
export function gateAt(grid, column, row) {
  return grid.gate_names[grid.gates[row * grid.columns + column]];
}

/** Area of a tile in mm2; those at the right and lower edge may be cut off. */
function tileArea(grid, column, row) {
  const wide = column === grid.columns - 1 ? grid.last_column_share : 1;
  const high = row === grid.rows - 1 ? grid.last_row_share : 1;
  return grid.tile_mm2 * wide * high;
}

/**
 * Areas in mm2, of whole tiles, as the outlines show them.
 *
 * @returns {{judged: number, above: number, tiles: number}} `tiles` counts those at or above the threshold.
 */
export function areas(grid, threshold) {
  const found = { judged: 0, above: 0, tiles: 0 };
  grid.probabilities.forEach((value, at) => {
    if (value === null) return;
    const mm2 = tileArea(grid, at % grid.columns, Math.floor(at / grid.columns));
    found.judged += mm2;
    if (value < threshold) return;
    found.above += mm2;
    found.tiles += 1;
  });
  return found;
}

/**
 * Tiles at or above the threshold that touch by their sides, the largest first, as in the GeoJSON.
 *
 * @returns {Array<{tiles: number, mm2: number, mean: number, highest: number, box: number[]}>} box: left, top, right,
 *   bottom in tiles.
 */
export function regions(grid, threshold) {
  const { columns, rows, probabilities } = grid;
  const seen = new Uint8Array(columns * rows);
  const above = (at) => probabilities[at] !== null && probabilities[at] >= threshold;
  const found = [];
  for (let start = 0; start < seen.length; start += 1) {
    if (seen[start] || !above(start)) continue;
    const region = { tiles: 0, mm2: 0, sum: 0, highest: 0, box: [columns, rows, 0, 0] };
    const open = [start];
    seen[start] = 1;
    while (open.length) {
      const at = open.pop();
      const column = at % columns;
      const row = (at - column) / columns;
      add(region, probabilities[at], column, row, tileArea(grid, column, row));
      for (const [there, next] of [
        [column > 0, at - 1],
        [column < columns - 1, at + 1],
        [row > 0, at - columns],
        [row < rows - 1, at + columns],
      ]) {
        if (there && !seen[next] && above(next)) {
          seen[next] = 1;
          open.push(next);
        }
      }
    }
    found.push(region);
  }
  return found
    .map(({ sum, ...region }) => ({ ...region, mean: sum / region.tiles }))
    .sort((one, two) => two.tiles - one.tiles);
}

function add(region, value, column, row, mm2) {
  region.tiles += 1;
  region.mm2 += mm2;
  region.sum += value;
  region.highest = Math.max(region.highest, value);
  const [left, top, right, bottom] = region.box;
  region.box = [Math.min(left, column), Math.min(top, row), Math.max(right, column + 1), Math.max(bottom, row + 1)];
}

/** The sides between tiles at or above the threshold and all others, as lines [x1, y1, x2, y2] in tiles. */
export function outlines(grid, threshold) {
  const above = (column, row) => {
    const value = probabilityAt(grid, column, row);
    return value !== null && value >= threshold;
  };
  const lines = [];
  for (let row = 0; row <= grid.rows; row += 1) {
    for (let column = 0; column <= grid.columns; column += 1) {
      const here = above(column, row);
      if (here !== above(column - 1, row)) lines.push([column, row, column, row + 1]);
      if (here !== above(column, row - 1)) lines.push([column, row, column + 1, row]);
    }
  }
  return lines;
}

/** A round length (1, 2 or 5 times a power of ten) of at most so many um. */
export function roundLength(longest) {
  const power = 10 ** Math.floor(Math.log10(longest));
  return Math.max(...[1, 2, 5].map((factor) => factor * power).filter((length) => length <= longest));
}
