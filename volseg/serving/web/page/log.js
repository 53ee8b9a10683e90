// What went wrong, and for administrators who did what.

import { get, may } from "./api.js";
import { button, el, refresh, row, table } from "./dom.js";
import { attempt } from "./shell.js";
import { age, chip, formatName, moment } from "./words.js";

export function open(main) {
  const list = table("What went wrong", [["Status"], ["Case"], ["What"], ["Why"], ["When", "end"]], "failures");
  const nothing = el("p", { class: "empty", hidden: true }, "Nothing has gone wrong.");
  main.replaceChildren(el("h1", {}, "Log"), el("section", { class: "card" }, el("h2", {}, "What went wrong"), list, nothing));
  if (may("admin")) main.append(audit());
  return {
    async look() {
      const [jobs, deliveries] = await Promise.all([get("jobs"), get("deliveries")]);
      const failures = [
        ...jobs.filter((job) => job.status === "failed").map((job) => ({ ...job, what: `segmentation with ${job.model}`, at: job.ended })),
        ...deliveries.filter((each) => each.reason).map((each) => ({ ...each, id: `d${each.id}`, what: `${formatName(each.format)} to ${each.destination}`, at: null })),
      ];
      refresh(list.tBodies[0], failures.map(({ id, case_id, title, status, reason, what, at }) => ({ id, case_id, title, status, reason, what, at, age: at ? age(at) : "" })), failure);
      list.hidden = !failures.length;
      nothing.hidden = failures.length > 0;
      return false;
    },
  };
}

function failure(each) {
  return row([chip(each.status), "status"],
    [el("a", { href: `#/case/${each.case_id}`, class: "title", "data-focus": "title" }, each.title), "main"],
    [each.what, "images"], [each.reason, "review"], [each.age, "end age"]);
}

/** Return the audit. Looking at it is noted in it, so it is asked for when somebody wants to see it. */
function audit() {
  const list = table("Audit", [["When"], ["Who"], ["What"], ["Case"], ["Detail"]], "audit");
  list.hidden = true;
  const more = button("Show the audit", (event) => attempt(event.currentTarget, async () => {
    const last = list.tBodies[0].lastElementChild?.dataset.at;
    const lines = await get(`audit${last ? `?before=${last}` : ""}`);
    list.tBodies[0].append(...lines.map(auditLine));
    list.hidden = false;
    more.textContent = "Show earlier lines";
    more.hidden = lines.length === 0;
  }));
  return el("section", { class: "card" }, el("h2", {}, "Audit"), list, more);
}

function auditLine(line) {
  const made = row([moment(line.at), "age"], [line.who, "main"], [line.what, "images"],
    [line.case_id && el("a", { href: `#/case/${line.case_id}` }, el("code", {}, line.case_id)), "images"], [line.detail, "images"]);
  made.dataset.at = line.at;
  return made;
}
