// Requests. Every failure becomes an Error whose message is one sentence.

/** Who looks at the page: user, role, csrf, needs_login, can_log_out. */
export let who = { user: "", role: "", csrf: "", needs_login: true, can_log_out: false };

const ROLES = ["viewer", "reviewer", "admin"];
const SILENT = "the server does not answer: check that it runs and that this computer is connected";

/** Something that the server refuses; `status` is that of HTTP, 0 if there was no answer. */
export class Refusal extends Error {
  constructor(text, status) {
    super(text);
    this.status = status;
  }
}

/** Return whether the user may do what a role may. */
export const may = (role) => ROLES.indexOf(who.role) >= ROLES.indexOf(role);

/** Ask who looks at the page. */
export async function askWho() {
  who = await get("session");
  return who;
}

export const get = async (path) => (await ask(path)).json();
export const text = async (path) => (await ask(path)).text();
export const remove = (path) => ask(path, { method: "DELETE" });

export async function post(path, body = null) {
  const headers = { "Content-Type": "application/json" };
  return (await ask(path, { method: "POST", headers, body: body && JSON.stringify(body) })).json();
}

/** Fetch a file, with the name that the server gives it. */
export async function file(path) {
  const answer = await ask(path);
  const name = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition") ?? "")?.[1] ?? "file";
  return new File([await answer.blob()], name);
}

/** Send files; `onProgress` gets the share that is sent. `request.abort()` stops it; `done` is a promise. */
export function upload(files, model, onProgress) {
  const form = new FormData();
  for (const [each, name] of files) form.append("files", each, name);
  if (model) form.append("model", model);
  const request = new XMLHttpRequest();
  const done = new Promise((resolve, reject) => {
    request.upload.onprogress = (event) => onProgress(event.loaded / event.total);
    request.onload = () => {
      const body = parsed(request.responseText);
      if (request.status < 300) resolve(body);
      else reject(new Refusal(sentence(body, request.status), request.status));
    };
    request.onerror = () => reject(new Refusal(SILENT, 0));
    request.onabort = () => resolve({ case_ids: [], left_out: [] });
  });
  request.open("POST", "/api/cases");
  request.setRequestHeader("X-CSRF-Token", who.csrf);
  request.send(form);
  return { request, done };
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(`/api/${path}`, { ...options, headers: { "X-CSRF-Token": who.csrf, ...options.headers } });
  } catch {
    throw new Refusal(SILENT, 0);
  }
  if (!answer.ok) throw new Refusal(sentence(parsed(await answer.text()), answer.status), answer.status);
  return answer;
}

function parsed(answer) {
  try {
    return JSON.parse(answer);
  } catch {
    return null;
  }
}

/** Return what went wrong; `detail` is a sentence, or a list of what is wrong with a request. */
function sentence(body, status) {
  if (typeof body?.detail === "string") return body.detail;
  if (Array.isArray(body?.detail)) return body.detail.map((each) => `${each.loc?.at(-1)}: ${each.msg}`).join("; ");
  return `the server could not do this (HTTP ${status}); its log says why`;
}
