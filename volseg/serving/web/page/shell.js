// What is around every view: messages, dialogs, light and dark.

import { button, el } from "./dom.js";

const SHOWN_MS = 7000;

/** Say something that goes well; it vanishes by itself. */
export function say(text) {
  const node = message(text, "");
  setTimeout(() => node.remove(), SHOWN_MS);
}

/** Say what went wrong; it stays until it is closed. */
export function complain(error) {
  const same = [...document.querySelectorAll("#messages .alarm span")].some((node) => node.textContent === error.message);
  if (!same) message(error.message, "alarm");
}

/**
 * Do something for a button, and say if it fails. It is busy meanwhile, but not disabled, which would take the focus
 * away from it. Returns whether it went well.
 */
export async function attempt(node, action) {
  if (node?.hasAttribute("aria-busy")) return false;
  node?.setAttribute("aria-busy", "true");
  try {
    await action();
    return true;
  } catch (error) {
    complain(error);
    return false;
  } finally {
    node?.removeAttribute("aria-busy");
  }
}

/** Show a dialog, whose buttons come last; it is removed when it closes. */
export function dialog(title, body, ...buttons) {
  const close = button("Close", () => node.close());
  const node = el("dialog", { "aria-labelledby": "dialog-title", onclose: () => node.remove() },
    el("header", {}, el("h2", { id: "dialog-title" }, title), close),
    el("div", { class: "body" }, body, buttons.length ? el("div", { class: "buttons end" }, buttons) : null));
  document.body.append(node);
  node.showModal();
  return node;
}

/** Ask before something that cannot be undone. */
export function confirm(title, text, verb, action) {
  const node = dialog(title, el("p", {}, text), button("Cancel", () => node.close()), button(verb, async (event) => {
    if (await attempt(event.target, action)) node.close();
  }, { class: "danger" }));
}

/** Follow the system's light or dark, or what was chosen here before. */
export function startTheme() {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
}

/** Change between light and dark. */
export function changeTheme() {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.dataset.theme = (root.dataset.theme ?? system) === "dark" ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
}

function message(text, kind) {
  const node = el("div", { class: `message ${kind}`, role: kind ? "alert" : null }, el("span", {}, text),
    button("\u00d7", () => node.remove(), { "aria-label": "Close this message", class: "bare" }));
  document.getElementById("messages").append(node);
  return node;
}
