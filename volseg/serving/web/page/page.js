// The page: who looks at it, which view the address names, and looking again while something runs.

import { askWho, may, post, who } from "./api.js";
import { el } from "./dom.js";
import { attempt, changeTheme, complain, dialog, startTheme } from "./shell.js";
import * as cases from "./worklist.js";
import * as oneCase from "./case.js";
import * as queue from "./queue.js";
import * as models from "./models.js";
import * as destinations from "./destinations.js";
import * as log from "./log.js";

const VIEWS = { cases, case: oneCase, queue, models, destinations, log };
const TITLES = { cases: "Work list", case: "Case", queue: "Queue", models: "Models", destinations: "Destinations", log: "Log" };
const BUSY_MS = 2000, IDLE_MS = 10000;

const main = document.getElementById("main");
const scrolled = new Map();
let view = null, address = "", timer = 0;

startTheme();
document.getElementById("theme").addEventListener("click", changeTheme);
document.getElementById("help").addEventListener("click", showHelp);
document.getElementById("log-out").addEventListener("click", (event) => attempt(event.target, logOut));
document.getElementById("skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
addEventListener("hashchange", open);
document.addEventListener("visibilitychange", () => document.hidden ? clearTimeout(timer) : lookAgain());
document.addEventListener("changed", lookAgain);
document.addEventListener("keydown", onKey, true);
history.scrollRestoration = "manual";
start();

/** Show the view that the address names, or the login. */
async function start() {
  try {
    await askWho();
  } catch (error) {
    offline(error);
    setTimeout(start, IDLE_MS);
    return;
  }
  offline(null);
  document.getElementById("nav").hidden = who.needs_login;
  document.getElementById("log-out").hidden = !who.can_log_out;
  document.getElementById("who").textContent = who.user && who.user !== "local" ? `${who.user} (${who.role})` : "";
  if (who.needs_login) showLogin();
  else await open();
}

async function open() {
  if (who.needs_login) return;
  scrolled.set(address, scrollY);
  view?.close?.();
  address = location.hash || "#/cases";
  const [, name, argument = ""] = address.split("/");
  const module = VIEWS[name] ?? cases;
  document.title = `${TITLES[name] ?? TITLES.cases} \u2013 volseg`;
  for (const link of document.querySelectorAll("#nav a")) {
    const isHere = link.getAttribute("href") === address || (name === "case" && link.hash === "#/cases");
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const isFirst = view === null;
  view = module.open(main, decodeURIComponent(argument));
  if (!isFirst) main.focus({ preventScroll: true });
  await lookAgain();
  scrollTo(0, scrolled.get(address) ?? 0);
}

/**
 * Let the view ask the server again, and once more after a while: sooner if something runs. It asks once at a time, so
 * that an earlier answer never replaces a later one.
 */
async function lookAgain() {
  clearTimeout(timer);
  const looking = view;
  if (!looking || document.hidden) return;
  if (looking.isAsking) {
    looking.isWanted = true;
    return;
  }
  looking.isAsking = true;
  let isBusy = false;
  try {
    do {
      looking.isWanted = false;
      isBusy = await looking.look();
    } while (looking.isWanted && view === looking);
    offline(null);
  } catch (error) {
    if (error.status === 401) return signIn();
    if (error.status === 0) offline(error);
    else if (view === looking) complain(error);
  } finally {
    looking.isAsking = false;
  }
  if (view === looking) timer = setTimeout(lookAgain, isBusy ? BUSY_MS : IDLE_MS);
}

/** The session has ended. */
function signIn() {
  view?.close?.();
  view = null;
  return start();
}

function offline(error) {
  const strip = document.getElementById("offline");
  strip.hidden = !error;
  if (error) strip.textContent = error.message;
}

function showLogin() {
  const name = el("input", { id: "name", name: "name", autocomplete: "username", required: true });
  const password = el("input", { id: "password", type: "password", autocomplete: "current-password", required: true });
  const problem = el("p", { role: "alert", class: "problem" });
  const enter = async (event) => {
    event.preventDefault();
    try {
      await post("login", { name: name.value, password: password.value });
      await start();
    } catch (error) {
      problem.textContent = error.message;
      password.value = "";
      password.focus();
    }
  };
  document.title = "Log in \u2013 volseg";
  main.replaceChildren(el("form", { class: "login", onsubmit: enter },
    el("h1", {}, "Log in"),
    el("label", { for: "name" }, "Name"), name,
    el("label", { for: "password" }, "Password"), password, problem,
    el("button", { class: "primary" }, "Log in")));
  name.focus();
}

async function logOut() {
  await post("logout");
  await signIn();
}

// Keys

const PAGES = { w: "#/cases", q: "#/queue", m: "#/models", d: "#/destinations", l: "#/log" };

function onKey(event) {
  const isTyping = event.target.matches("input:not([type=checkbox], [type=range], [type=color]), select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping || document.querySelector("dialog[open]") || who.needs_login) return;
  const action = view?.keys?.[event.key];
  if (action) action(event);
  else if (PAGES[event.key]) location.hash = PAGES[event.key];
  else if (event.key === "t") changeTheme();
  else if (event.key === "?") showHelp();
  else return;
  event.preventDefault();
  event.stopPropagation();
}

function showHelp() {
  const keys = [
    ["Everywhere", [["w", "work list"], ["q", "queue"], ["m", "models"], ["d", "destinations"], ["l", "log"],
      ["t", "light or dark"], ["?", "these keys"]]],
    ["Work list", [["/", "search"], ["j k", "next or previous case"], ["Enter", "open it"],
      ...(may("reviewer") ? [["u", "choose files to upload"]] : [])]],
    ["Case", [["1 2 3 4 5", "all, axial, coronal, sagittal, 3D"], ["s", "show or hide all structures"],
      ["[ ]", "less or more opaque"], ["r", "ruler"], ["0", "view as at first"], ["Backspace", "back to the work list"]]],
    ["In the picture", [["\u2190 \u2192 \u2191 \u2193", "move the cross"], ["PageUp PageDown", "next slices"]]],
  ];
  dialog("Keys", el("div", { class: "keys" }, keys.map(([title, list]) => el("section", {}, el("h3", {}, title),
    el("dl", {}, list.map(([key, what]) => [el("dt", {}, key.split(" ").map((each) => el("kbd", {}, each))), el("dd", {}, what)]))))));
}
