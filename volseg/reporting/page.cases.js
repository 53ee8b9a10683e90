// ---- the table of cases

const TEXTS = ["case_id", "label", "status", "reason"];
const FIRST_MINOR = 5; // columns from here on have no room on a phone

function tableColumns() {
  const reason = ROWS.some((row) => row.reason) ? ["reason"] : [];
  return ["case_id", "label", "status", ...DATA.table_metrics, ...reason];
}

function columnClass(name, n) {
  const words = TEXTS.includes(name) ? ["text", name] : [];
  return [...words, ...(n >= FIRST_MINOR || name === "status" || name === "label" ? ["minor"] : [])].join(" ");
}

function ordered(rows) {
  const name = state.sort;
  const sign = state.descending ? -1 : 1;
  const value = (row) => (name === "status" ? SEVERITY.indexOf(row.status) : row[name]);
  return [...rows].sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    if (a === b) return 0;
    if (a === null || a === undefined || a === "") return 1;
    if (b === null || b === undefined || b === "") return -1;
    return sign * (typeof a === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));
  });
}

function showTable() {
  const text = state.search.toLowerCase();
  const rows = ordered(ROWS.filter((row) =>
    (!text || `${row.case_id} ${row.reason ?? ""}`.toLowerCase().includes(text)) &&
    (!state.label || row.label === state.label) && (!state.status || row.status === state.status),
  ));
  state.shown = rows;
  byId("count").textContent = `${rows.length} of ${ROWS.length} rows`;
  const hasPictures = canUnpack && Object.keys(DATA.pictures).length > 0;
  const head = tableColumns().map((name, n) =>
    element("th", {
      class: columnClass(name, n), scope: "col", title: COLUMNS.get(name)?.definition ?? "",
      "aria-sort": state.sort === name ? (state.descending ? "descending" : "ascending") : "none",
    }, element("button", { type: "button", "data-sorts": name, onclick: () => sortBy(name) }, readable(name.replace("case_id", "case")))));
  const body = rows.map((row, n) =>
    element("tr", { tabindex: n ? -1 : 0, "data-case": row.case_id, "data-label": row.label ?? "", onclick: () => openCase(row.case_id, row.label), onkeydown: moveInTable },
      ...(hasPictures ? [element("td", { class: "picture" }, thumbnailOf(row.case_id, row.label) ?? "")] : []),
      ...tableColumns().map((name, m) => tableCell(row, name, m))));
  if (hasPictures) head.unshift(element("th", { class: "picture", scope: "col", "aria-label": "picture" }));
  byId("cases").replaceChildren(element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
}

function tableCell(row, name, n) {
  const cell = element("td", { class: columnClass(name, n), title: name === "reason" ? row.reason ?? "" : false });
  if (name === "status") cell.append(statusChip(row.status));
  else if (name === "label") cell.append(...labelOf(row));
  else cell.append(shown(row[name], name));
  if (name === "case_id") cell.append(element("small", { class: "below" }, ...labelOf(row), ...(isGood(row.status) ? [] : [" ", statusChip(row.status)])));
  return cell;
}

const labelOf = (row) => (row.label ? [swatch(colorOf(row.label)), row.label] : []);

function sortBy(name) {
  state.descending = state.sort === name ? !state.descending : COLUMNS.get(name)?.better === "lower";
  state.sort = name;
  showTable();
  document.querySelector(`[data-sorts="${name}"]`).focus();
}

function moveInTable(event) {
  const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  const other = step && event.currentTarget[step];
  if (step) event.preventDefault();
  if (other) {
    event.currentTarget.tabIndex = -1;
    other.tabIndex = 0;
    other.focus();
  } else if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    openCase(event.currentTarget.dataset.case, event.currentTarget.dataset.label);
  }
}

function showCases() {
  if (!ROWS.length) return;
  byId("cases-section").hidden = false;
  const fill = (id, values, every, name) =>
    byId(id).append(element("option", { value: "" }, every), ...values.map((value) => element("option", { value }, name(value))));
  fill("label-filter", LABELS, "all", String);
  fill("status-filter", [...new Set(ROWS.map((row) => row.status))], "all", readable);
  const follow = (id, key) => byId(id).addEventListener("input", (event) => { state[key] = event.target.value; showTable(); });
  follow("search", "search");
  follow("label-filter", "label");
  follow("status-filter", "status");
  showTable();
}
