// The jobs of one case.

import { get } from "./api.js";
import { button, el } from "./dom.js";
import { jobActions } from "./queue.js";
import { age, bar, chip, moment } from "./words.js";

const ENDED = ["done", "failed", "cancelled", "outdated"];

/**
 * Ask how far the jobs of a case are, and whether their results were sent. The audit notes who looks at a case, so the
 * case itself is not asked for again and again. Returns the jobs, the latest first.
 */
export async function jobsOf(id) {
  return (await get(`jobs?case_id=${id}`)).sort((one, other) => other.created - one.created);
}

/** Return the card of the jobs; `choose(id)` shows the masks of another one. */
export function jobsCard(shown, current, choose) {
  if (!shown.jobs.length) {
    return el("section", { class: "card", id: "jobs-of-case" }, el("h2", {}, "Segmentations"),
      el("p", { class: "quiet" }, shown.status === "arriving" ? "Images of this study are still arriving." : shown.reason || "This case has not been segmented."));
  }
  return el("section", { class: "card", id: "jobs-of-case" }, el("h2", {}, "Segmentations"),
    el("ul", { class: "rows" }, shown.jobs.map((job) => line(job, shown, current, choose))));
}

function line(job, shown, current, choose) {
  const when = job.ended && ENDED.includes(job.status) ? job.ended : job.created;
  const isShown = job.id === current?.id;
  return el("li", { "aria-current": isShown ? "true" : null },
    el("div", { class: "delivery" }, el("b", {}, job.model), chip(job.status),
      el("time", { class: "quiet", title: moment(when) }, age(when)),
      el("span", { class: "buttons end" },
        job.results.length > 0 && !isShown && button("Show", () => choose(job.id), { "data-focus": `show ${job.id}`, "aria-label": `Show the masks of ${job.model}` }),
        jobActions(job, shown.title))),
    job.status === "running" && bar(job.progress, `Progress of ${job.model}`),
    job.reason && el("p", { class: "below" }, job.reason));
}
