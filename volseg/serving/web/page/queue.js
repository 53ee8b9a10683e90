// The queue: what runs, waits and has ended; and what is on its way to a destination.

import { get, may, post } from "./api.js";
import { button, el, refresh, row, table } from "./dom.js";
import { attempt } from "./shell.js";
import { age, bar, chip, formatName, moment } from "./words.js";

export function open(main) {
  const jobs = table("Jobs", [["Status"], ["Case"], ["Model"], ["Priority", "end"], ["Asked for", "end"], ["Actions", "end"]], "jobs");
  const sending = table("Deliveries", [["Status"], ["Case"], ["What"], ["To"], ["Attempts", "end"], ["Actions", "end"]], "deliveries");
  const noJobs = el("p", { class: "empty", hidden: true }, "Nothing has been segmented yet.");
  const noSending = el("p", { class: "empty", hidden: true }, "Nothing waits to be sent, and nothing was given up.");
  main.replaceChildren(el("h1", {}, "Queue"),
    el("section", { class: "card" }, el("h2", {}, "Jobs"), jobs, noJobs),
    el("section", { class: "card" }, el("h2", {}, "Deliveries"), sending, noSending));
  return {
    async look() {
      const [listed, deliveries] = await Promise.all([get("jobs"), get("deliveries")]);
      refresh(jobs.tBodies[0], listed.map(({ results, labels, ...job }) => ({ ...job, age: age(job.created) })), jobLine);
      refresh(sending.tBodies[0], deliveries, deliveryLine);
      jobs.hidden = !listed.length;
      noJobs.hidden = listed.length > 0;
      sending.hidden = !deliveries.length;
      noSending.hidden = deliveries.length > 0;
      return listed.some((job) => job.status === "running" || job.status === "waiting") || deliveries.length > 0;
    },
  };
}

/** Return what can be done about a job; `title` says of which, to those who only hear it. */
export function jobActions(job, title) {
  if (!may("reviewer")) return [];
  const waits = job.status === "waiting", runs = job.status === "running";
  const act = (text, what, body = null) => button(text, (event) => attempt(event.currentTarget, async () => {
    await post(`jobs/${job.id}/${what}`, body);
    document.dispatchEvent(new Event("changed"));
  }), { "data-focus": text, "aria-label": `${text}: ${title}` });
  return [
    waits && act("Sooner", "priority", { priority: Math.min(job.priority + 1, 100) }),
    waits && act("Later", "priority", { priority: Math.max(job.priority - 1, -100) }),
    (waits || runs) && act("Cancel", "cancel"),
    ["failed", "cancelled"].includes(job.status) && act("Retry", "retry"),
  ];
}

/** Return a button that sends a result again that was given up. */
export function retryDelivery(delivery) {
  return delivery.status === "failed" && may("reviewer") && button("Retry", (event) => attempt(event.currentTarget, async () => {
    await post(`deliveries/${delivery.id}/retry`);
    document.dispatchEvent(new Event("changed"));
  }), { "data-focus": "Retry", "aria-label": `Retry: to ${delivery.destination}` });
}

function jobLine(job) {
  return row(
    [[chip(job.status), job.status === "running" && bar(job.progress, `Progress of ${job.title}`),
      job.reason && el("span", { class: "below" }, job.reason)], "status"],
    [el("a", { href: `#/case/${job.case_id}`, class: "title", "data-focus": "title" }, job.title), "main"],
    [[job.model, job.rule && el("span", { class: "below" }, `rule ${job.rule}`)], "images"],
    [job.priority, "end number", "priority"],
    [el("time", { title: moment(job.created) }, job.age), "end age"],
    [el("div", { class: "buttons end" }, jobActions(job, job.title)), "end actions"],
  );
}

function deliveryLine(delivery) {
  return row(
    [[chip(delivery.status), delivery.reason && el("span", { class: "below" }, delivery.reason)], "status"],
    [el("a", { href: `#/case/${delivery.case_id}`, class: "title", "data-focus": "title" }, delivery.title), "main"],
    [formatName(delivery.format), "images"],
    [delivery.destination, "images"],
    [delivery.attempts, "end number", "attempts"],
    [el("div", { class: "buttons end" }, retryDelivery(delivery)), "end actions"],
  );
}
