// The bearer token: asked for when the server refuses, kept until the tab is closed.

import { byId } from "./dom.js";

const KEY = "ductal.token";
let asking = null;

export function token() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function forgetToken() {
  sessionStorage.removeItem(KEY);
}

/**
 * Ask the user, once for all requests that wait.
 *
 * @param {boolean} wrong the one given before was refused.
 * @returns {Promise<boolean>} false if the user would not give one.
 */
export function askToken(wrong) {
  asking ??= open(wrong).finally(() => {
    asking = null;
  });
  return asking;
}

function open(wrong) {
  const dialog = byId("token-dialog");
  const field = byId("token-value");
  byId("token-wrong").textContent = wrong ? "The server does not know that token." : "";
  field.value = "";
  dialog.showModal();
  field.focus();
  return new Promise((resolve) => {
    const end = (given) => {
      byId("token-form").onsubmit = byId("token-cancel").onclick = dialog.oncancel = null;
      dialog.close();
      resolve(given);
    };
    byId("token-form").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, field.value.trim());
      end(true);
    };
    byId("token-cancel").onclick = () => end(false);
    dialog.oncancel = () => end(false);
  });
}
