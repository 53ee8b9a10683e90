// ---- charts

let charts = null; // a promise: the library is unpacked after the page is seen

async function loadCharts() {
  const script = await inflated(byId("plotly").textContent).text();
  document.head.append(element("script", {}, script));
}

function layout(more) {
  const line = cssColor("--line");
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true, nticks: 7, exponentformat: "none", fixedrange: isTouch };
  const base = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 56, r: 14, t: 12, b: 44 }, dragmode: isTouch ? false : "zoom",
    font: { family: "system-ui, sans-serif", size: 12, color: cssColor("--text") }, hoverlabel: { align: "left" }, hoverdistance: isTouch ? 40 : 20,
  };
  for (const name of Object.keys(more)) if (/^[xy]axis/.test(name)) more[name] = { ...axis, ...more[name] };
  return { ...base, ...more };
}

const OPTIONS = { displaylogo: false, displayModeBar: isTouch ? false : "hover", responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };

/** Steps of 1, 2 or 5 times a power of ten, and at least one. */
function wholeStep(span, most = 8) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, span / most)));
  return power * [1, 2, 5, 10].find((step) => span / (step * power) <= most);
}

function openOnClick(chart) {
  if (chart.removeAllListeners) chart.removeAllListeners("plotly_click");
  chart.on("plotly_click", (event) => openCase(event.points[0].text, event.points[0].data.meta));
}

function markerOf(color) {
  return { color, size: isTouch ? 9 : 6, opacity: 0.75, line: { width: 0.5, color: cssColor("--text") } };
}

function showBox() {
  const name = byId("metric").value;
  byId("definition").textContent = COLUMNS.get(name).definition;
  const traces = LABELS.map((label) => {
    const rows = ROWS.filter((row) => row.label === label && typeof row[name] === "number");
    return {
      type: "box", orientation: "h", name: label, meta: label, x: rows.map((row) => row[name]), text: rows.map((row) => row.case_id), boxpoints: "all",
      jitter: 0.5, pointpos: 0, boxmean: true, line: { width: 1.2, color: cssColor("--quiet") }, fillcolor: `${colorOf(label)}55`, marker: markerOf(colorOf(label)),
      hovertemplate: "%{text}<br>%{x:.4g}<extra>%{fullData.name}</extra>",
    };
  });
  byId("box").style.height = `${Math.max(byId("agreement-figure").hidden ? 200 : 380, 90 + 32 * LABELS.length)}px`;
  Plotly.react("box", traces, layout({ showlegend: false, xaxis: { title: { text: readable(name) } }, yaxis: { autorange: "reversed", nticks: 0, ticksuffix: "  " } }), OPTIONS);
  openOnClick(byId("box"));
}

function showAgreement() {
  const label = byId("agreement-label").value;
  const [reference, predicted, unit] = [`reference_${SIZE}`, `predicted_${SIZE}`, SHORT[SIZE] ?? SIZE];
  const rows = ROWS.filter((row) => row.label === label && typeof row[reference] === "number" && typeof row[predicted] === "number" && !["not_predicted", "both_empty"].includes(row.status));
  const differences = rows.map((row) => row[predicted] - row[reference]);
  const mean = differences.reduce((sum, value) => sum + value, 0) / differences.length;
  const variance = differences.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(1, differences.length - 1);
  const limit = 1.96 * Math.sqrt(variance);
  const lines = limit > 0 ? [[mean, "mean"], [mean - limit, "−1.96 SD"], [mean + limit, "+1.96 SD"]] : [[mean, "mean"]];
  const quiet = cssColor("--quiet");
  const trace = {
    type: "scatter", mode: "markers", x: rows.map((row) => (row[predicted] + row[reference]) / 2), y: differences, meta: label,
    text: rows.map((row) => row.case_id), marker: markerOf(colorOf(label)),
    hovertemplate: `%{text}<br>mean %{x:.4g} ${unit}, difference %{y:.4g} ${unit}<extra></extra>`,
  };
  Plotly.react("agreement", [trace], layout({
    margin: { l: 56, r: 84, t: 12, b: 44 },
    xaxis: { title: { text: `${label}: mean of both [${unit}]` } }, yaxis: { title: { text: `predicted − reference [${unit}]` } },
    shapes: lines.map(([y], n) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color: quiet, width: 1.2, dash: n ? "dash" : "solid" } })),
    annotations: lines.map(([y, text]) => ({ xref: "paper", x: 1, xanchor: "left", xshift: 4, y, yanchor: "middle", align: "left", text: `${text}<br>${shown(y).replace("-", "−")}`, font: { size: 11, color: quiet }, showarrow: false })),
  }), OPTIONS);
  openOnClick(byId("agreement"));
}

// ---- training

const MOST_NAMED = 12; // curves that a legend has room for; others say their names when they are pointed at

function showCurves() {
  if (!DATA.history.length) return;
  byId("curves-section").hidden = false;
  const folds = [...new Set(DATA.history.map((row) => row.fold))];
  const traces = folds.length > 1 ? folds.flatMap(curvesOfFold) : curvesOfRun(DATA.history);
  const last = Math.max(...DATA.history.map((row) => row.epoch));
  Plotly.react("curves", traces, layout({
    margin: { l: 60, r: 16, t: 12, b: 44 }, hovermode: traces.length > MOST_NAMED ? "closest" : "x unified", legend: { orientation: "h", y: -0.16, yanchor: "top" },
    xaxis: { title: { text: "epoch" }, dtick: wholeStep(last), tick0: 0, range: [0, last + 0.02 * last], anchor: "y2" },
    yaxis: { title: { text: "validation Dice" }, range: [0, 1.02], dtick: 0.2, tick0: 0, domain: [0.46, 1] },
    yaxis2: { title: { text: "loss" }, domain: [0, 0.36], anchor: "x" },
  }), OPTIONS);
}

const curve = (rows, column, name, line, more = {}) =>
  ({ type: "scatter", mode: "lines", name, x: rows.map((row) => row.epoch), y: rows.map((row) => row[column]), connectgaps: true, line, hovertemplate: "%{y:.4f}", ...more });

function curvesOfRun(rows) {
  const [text, quiet] = [cssColor("--text"), cssColor("--quiet")];
  const labels = Object.keys(rows[0]).filter((name) => name.startsWith("dice_")).map((name) => name.slice("dice_".length));
  const scored = rows.filter((row) => typeof row.dice === "number");
  const best = scored.reduce((one, other) => (!one || other.dice > one.dice ? other : one), null);
  const mean = best ? `${labels.length > 1 ? "mean, " : ""}best ${shown(best.dice)} in epoch ${best.epoch}` : "mean";
  return [
    ...(labels.length > 1 ? labels.map((label) => curve(rows, `dice_${label}`, label, { color: colorOf(label), width: 1.5 }, { showlegend: labels.length <= MOST_NAMED })) : []),
    ...("train_dice" in rows[0] ? [curve(rows, "train_dice", "training patches", { color: quiet, width: 1.5, dash: "dot" })] : []),
    curve(rows, "dice", mean, { color: text, width: 2.5 }),
    ...(best ? [curve([best], "dice", "best", {}, { mode: "markers", marker: { color: text, size: 9 }, showlegend: false, hoverinfo: "skip", hovertemplate: null })] : []),
    curve(rows, "loss", "loss", { color: cssColor("--accent"), width: 1.8 }, { yaxis: "y2", showlegend: false }),
  ];
}

function curvesOfFold(fold, n) {
  const rows = DATA.history.filter((row) => row.fold === fold);
  const line = { color: paletteColor(n), width: 2 };
  return [
    curve(rows, "dice", readable(fold), line, { legendgroup: fold }),
    curve(rows, "loss", readable(fold), line, { yaxis: "y2", legendgroup: fold, showlegend: false }),
  ];
}

function showCharts() {
  const numbers = DATA.columns.filter((column) => ROWS.some((row) => typeof row[column.name] === "number"));
  if (!numbers.length) return;
  byId("charts-section").hidden = false;
  if (!byId("metric").options.length) {
    for (const column of numbers) byId("metric").append(element("option", { value: column.name }, readable(column.name)));
    byId("metric").addEventListener("change", showBox);
    for (const label of LABELS) byId("agreement-label").append(element("option", {}, label));
    byId("agreement-label").addEventListener("change", showAgreement);
  }
  if (SIZE === "px2") byId("agreement-size").textContent = "Areas";
  byId("agreement-figure").hidden = !ROWS.some((row) => typeof row[`reference_${SIZE}`] === "number");
  showBox();
  if (!byId("agreement-figure").hidden) showAgreement();
}
