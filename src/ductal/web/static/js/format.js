// Numbers and calls in words.

/** A probability in percent, honest at the ends: never 0 % or 100 %. */
export function percent(value) {
  const hundredths = value * 100;
  if (hundredths < 0.1) return "< 0.1 %";
  if (hundredths > 99.9) return "> 99.9 %";
  if (hundredths < 1 || hundredths > 99) return `${hundredths.toFixed(1)} %`;
  return `${hundredths.toFixed(0)} %`;
}

/** A share in percent, where 0 and 100 are possible. */
export function share(value) {
  const hundredths = value * 100;
  return hundredths > 0 && hundredths < 1 ? `${hundredths.toFixed(1)} %` : `${Math.round(hundredths)} %`;
}

/** An area: two decimals, more where it is small. */
export function area(mm2) {
  return `${mm2 > 0 && mm2 < 0.1 ? mm2.toFixed(3) : mm2.toFixed(2)} mm²`;
}

/** A time to come, roughly. */
export function duration(seconds) {
  if (seconds < 2) return "a second";
  if (seconds < 90) return `${Math.round(seconds)} seconds`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} minutes`;
  return `${(seconds / 3600).toFixed(1)} hours`;
}

/** A size of a file. */
export function bytes(count) {
  for (const [unit, size] of [
    ["GiB", 2 ** 30],
    ["MiB", 2 ** 20],
    ["KiB", 2 ** 10],
  ]) {
    if (count >= size) return `${Number((count / size).toPrecision(3))} ${unit}`;
  }
  return `${count} bytes`;
}

/** A count with its noun. */
export function counted(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

export const CALLS = { cancer: "Cancer", not_cancer: "Not cancer", unsure: "Unsure" };

/** What the picture is called, as a heading. */
export const HEADINGS = {
  cancer: "Called cancer",
  not_cancer: "Called not cancer",
  unsure: "Unsure: no call is made",
};
