// How pictures come in: chosen, dropped (also folders), pasted. And what each is: a patch, or something larger.

import { byId, shown } from "./dom.js";

const PATCH_SIDE = 64; // pixels; the server has the last word
const SMALL = 60_000; // bytes; what the browser cannot decode (TIFF) and is smaller is tried as a patch

/** Listen; `onFiles(files)` gets an array of File, never empty. */
export function prepareFiles(onFiles) {
  const input = byId("files");
  byId("choose").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = ""; // so that the same file can be chosen again
    if (files.length) onFiles(files);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) onFiles(files);
  });
  listenToDrops(onFiles);
}

function listenToDrops(onFiles) {
  const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const veil = (visible) => {
    shown(byId("drop-veil"), visible);
    byId("drop-zone").classList.toggle("drop--over", visible);
  };
  document.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    veil(true);
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && veil(false));
  document.addEventListener("drop", async (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    veil(false);
    const files = await dropped(event.dataTransfer);
    if (files.length) onFiles(files);
  });
}

/** Files of a drop, those in folders too. */
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  const found = [];
  for (const entry of entries) await collect(entry, found);
  return found.filter((file) => !file.name.startsWith("."));
}

async function collect(entry, found) {
  if (entry.isFile) {
    found.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // 100 at a time
    if (!part.length) return;
    for (const each of part) await collect(each, found);
  }
}

/** "patch" or "region". */
export async function kindOf(file) {
  const size = await sizeOf(file);
  if (size) return Math.max(size.width, size.height) <= PATCH_SIDE ? "patch" : "region";
  return file.size <= SMALL ? "patch" : "region";
}

/** Width and height in pixels, or null when the browser cannot decode it. */
async function sizeOf(file) {
  const url = URL.createObjectURL(file);
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
    return { width: image.naturalWidth, height: image.naturalHeight };
  } catch {
    return null;
  } finally {
    URL.revokeObjectURL(url);
  }
}
