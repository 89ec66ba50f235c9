// The table of many patches as CSV (RFC 4180).

const COLUMNS = [
  "file",
  "probability",
  "call",
  "threshold",
  "lowest_of_8",
  "highest_of_8",
  "agree_of_8",
  "warnings",
  "problem",
];

/** A cell: quoted where needed; what a spreadsheet would run as a formula gets an apostrophe. */
function cell(value) {
  if (value === null || value === undefined) return "";
  let text = String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/**
 * @param {Array<{name: string, found: object|null, problem: object|null}>} rows
 * @returns {string} with a head; probabilities with six digits.
 */
export function asCsv(rows) {
  const lines = rows.map(({ name, found, problem }) =>
    [
      name,
      found && digits(found.probability),
      found?.call,
      found && digits(found.threshold),
      found?.d4 && digits(found.d4.lowest),
      found?.d4 && digits(found.d4.highest),
      found?.d4?.agree,
      found?.warnings.map((each) => each.code).join(" "),
      problem && (problem.detail || problem.title),
    ]
      .map(cell)
      .join(","),
  );
  return [COLUMNS.join(","), ...lines, ""].join("\r\n");
}

function digits(value) {
  return Number(value.toPrecision(6));
}
