// Learning curves: a colour, marker and dash pattern per group, and a legend that hides and shows groups.

const QUANTITIES = Object.fromEntries( // the score first
  data.metrics.filter(({ name }) => name !== "epoch_time").sort((a, b) => (b.name === data.score) - (a.name === data.score))
    .map((metric) => [metric.name, metric]));
const SCORE = QUANTITIES[data.score] ?? { label: "test accuracy", unit: "%" };
const AXES = {
  epoch: "epochs", seconds: "seconds of training and evaluation", examples: "examples seen",
  passes: "forward-pass equivalents",
};
const MARKERS = { o: "circle", s: "square", D: "diamond", "^": "triangle-up", v: "triangle-down", P: "cross", X: "x" };
const GLYPHS = {
  o: "M13 6a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z", s: "M13.5 2.5h7v7h-7z", D: "M17 1l5 5l-5 5l-5 -5z",
  "^": "M17 1.5l5 8.5h-10z", v: "M17 10.5l5 -8.5h-10z",
  P: "M15.5 1h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z",
  X: "M14 1l3 3l3 -3l2 2l-3 3l3 3l-2 2l-3 -3l-3 3l-2 -2l3 -3l-3 -3z",
};
const STROKES = { solid: "", dash: "8 4", dot: "2 3", dashdot: "8 3 2 3" };
const FEW = 10; // curves drawn at first
const hidden = new Set(); // groups hidden by a click in the legend

// The groups to draw: the best by score of those that pass the filter, in the table's order.
function drawnGroups() {
  const found = filtered();
  const most = +at("most").value || found.length;
  const score = (i) => data.groups[i].summary[data.score]?.mean ?? -Infinity;
  const best = new Set([...found].sort((a, b) => score(b) - score(a)).slice(0, most));
  return found.filter((i) => best.has(i));
}

function band(i, found, look) {
  const { x, y, error: errors } = found;
  const low = y.map((v, e) => v - errors[e]), high = y.map((v, e) => v + errors[e]);
  return {
    x: [...x, ...[...x].reverse()], y: [...high, ...low.reverse()], fill: "toself", mode: "lines",
    fillcolor: faint(colour(data.groups[i], look)), line: { width: 0 }, hoverinfo: "skip", name: `band ${i}`,
  };
}

function line(i, found, look) {
  const group = data.groups[i], own = colour(group, look), n = group.included.length;
  const seeds = n > 1 ? ` (${n} seeds)` : "";
  return {
    x: found.x, y: found.y, mode: "lines+markers", name: safe(group.label), meta: i, hoverinfo: "text",
    line: { color: own, width: 2, dash: group.style.dash },
    marker: { color: own, symbol: MARKERS[group.style.marker], size: 7, maxdisplayed: 12 },
    text: found.y.map((v, e) => `${safe(group.label)}<br>${withError(v, found.error[e])}${seeds}<br>epoch ${e}`),
  };
}

function drawCurves() {
  const look = theme(), quantity = at("quantity").value, axis = at("axis").value, shown = drawnGroups();
  const bands = [], lines = [], unknown = [];
  for (const i of shown) {
    const group = data.groups[i], found = curve(group, quantity, axis);
    if (!found && group.included.length) unknown.push(group.label);
    if (!found?.x.length || hidden.has(i)) continue;
    if (found.error.some((e) => e > 0)) bands.push(band(i, found, look));
    lines.push(line(i, found, look));
  }
  const form = layout(look, matchMedia("(max-width: 600px)").matches ? 340 : 430), loss = /loss|rmse|mae/.test(quantity);
  Object.assign(form.xaxis, { title: { text: AXES[axis] }, rangemode: "tozero" });
  form.yaxis.title = { text: QUANTITIES[quantity].title + (loss ? " (log scale)" : "") };
  if (loss) form.yaxis.type = "log";
  const low = QUANTITIES[quantity].lowest ?? null, all = lines.flatMap((one) => one.y);
  if (low !== null && Math.min(...all) < low) form.yaxis.range = [low, Math.max(1.05 * Math.max(...all), low + 0.1)];
  Plotly.react("curves", [...bands, ...lines], form, CONFIG);
  at("legend").replaceChildren(...shown.filter((i) => data.groups[i].runs.some((run) => run.rows[quantity])).map((i) => legendItem(i, look)));
  at("curves-note").textContent = notes(axis, unknown);
}

function notes(axis, unknown) {
  const seeds = Math.max(0, ...data.groups.map((group) => group.included.length));
  return [
    seeds > 1 ? "A curve is the mean over the finished seeds; its band is ± one standard error." : "",
    axis === "seconds" ? "Seconds of all epochs so far, averaged over seeds, without compilation." : "",
    axis === "passes" ? "Forward passes of one example; the documentation of each rule gives its number per step." : "",
    unknown.length ? `Not drawn, because the horizontal axis is unknown: ${unknown.join("; ")}.` : "",
  ].filter(Boolean).join(" ");
}

// An item of the legend.
function legendItem(i, look) {
  const group = data.groups[i], own = colour(group, look), button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-pressed", String(!hidden.has(i)));
  button.innerHTML = `<svg width="34" height="12" aria-hidden="true"><path d="M0 6h34" stroke="${own}" stroke-width="2"
    stroke-dasharray="${STROKES[group.style.dash]}"/><path d="${GLYPHS[group.style.marker]}" fill="${own}"/></svg>`;
  button.append(group.label + (group.status === "finished" ? "" : ` (${group.status})`));
  button.addEventListener("click", () => {
    if (!hidden.delete(i)) hidden.add(i);
    drawCurves();
  });
  const item = document.createElement("li");
  item.append(button);
  return item;
}
