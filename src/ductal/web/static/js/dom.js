// Elements without a framework: everything that came from outside enters as text, never as markup.

/** The element with this id, which the page's template holds. */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * A new element.
 *
 * @param {string} tag its name; "svg:rect" makes one of SVG.
 * @param {object} attributes attributes by name; a function is a listener ("onclick"), `vars` sets CSS custom
 *   properties (a style attribute would break the content security policy), false, null and undefined are left out.
 * @param {...(Node|string|number|null)} children what it holds, in order.
 */
export function el(tag, attributes = {}, ...children) {
  const svg = tag.startsWith("svg:");
  const node = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (name === "vars") for (const [key, of] of Object.entries(value)) node.style.setProperty(`--${key}`, of);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Replace what `node` holds. */
export function fill(node, ...children) {
  node.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
}

/** Say something to a screen reader, without moving the focus. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** Show or hide. */
export function shown(node, visible) {
  node.hidden = !visible;
}

/** Save a blob under a name. */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 30_000); // the browser reads it after the click
}

/** A file name without its ending, with nothing in it that a file system refuses. */
export function stem(name) {
  return (name.replace(/\.[^.]{1,8}$/, "").replace(/[^\p{L}\p{N}._-]+/gu, "_") || "picture").slice(0, 80);
}

/** A problem where it belongs, in words, with what can be done about it. */
export function showProblem(place, problem, ...actions) {
  if (!problem) {
    fill(place);
    return;
  }
  fill(
    place,
    el(
      "div",
      { class: "problem", "data-code": problem.code },
      el("p", { class: "problem__title" }, problem.title),
      problem.detail ? el("p", {}, problem.detail) : null,
      actions.length ? el("div", { class: "row" }, ...actions) : null,
    ),
  );
}

/** A button that does something. */
export function button(text, onclick, kind = "button") {
  return el("button", { type: "button", class: kind, onclick }, text);
}
