// The Markdown of model cards: headings, paragraphs, lists, tables, `code` and **bold**; other text stays as it is.

import { el } from "./dom.js";

/** Return the elements of a text. */
export function markdown(text) {
  const blocks = text.replace(/^---\n[\s\S]*?\n---\n/, "").split(/\n\s*\n/).map((block) => block.trim()).filter(Boolean);
  return blocks.flatMap((block) => element(block.split("\n")));
}

function element(lines) {
  const heading = /^(#{1,4}) (.*)/.exec(lines[0]);
  // The page has its own first two levels.
  if (heading) return [el(`h${Math.min(heading[1].length + 2, 6)}`, {}, inline(heading[2])), ...(lines.length > 1 ? element(lines.slice(1)) : [])];
  if (lines[0].startsWith("|")) return [tableOf(lines)];
  if (/^[-*] /.test(lines[0])) return [el("ul", {}, lines.join("\n").split(/^[-*] /m).slice(1).map((item) => el("li", {}, inline(item.trim()))))];
  return [el("p", {}, inline(lines.join(" ").replace(/^> /, "")))];
}

function tableOf(lines) {
  const cells = (line) => line.replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const [head, , ...rows] = lines;
  return el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, cells(head).map((cell) => el("th", { scope: "col" }, inline(cell))))),
    el("tbody", {}, rows.map((line) => el("tr", {}, cells(line).map((cell) => el("td", {}, inline(cell))))))));
}

function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) => {
    if (part.startsWith("`") && part.endsWith("`") && part.length > 2) return el("code", {}, part.slice(1, -1));
    if (part.startsWith("**") && part.length > 4) return el("b", {}, part.slice(2, -2));
    return part;
  });
}
