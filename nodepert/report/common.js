// Shared by all scripts: the data in the page, means and errors, positions on an axis, colours, plot layout.

const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const rows = [...document.querySelectorAll("tbody tr")]; // of the table, one per group
const CONFIG = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
let printing = false;

const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;

// Standard error of the mean; 0 for one value.
function error(values) {
  const n = values.length, middle = mean(values);
  return n > 1 ? Math.sqrt(values.reduce((sum, v) => sum + (v - middle) ** 2, 0) / (n - 1) / n) : 0;
}

function digits(value) {
  const size = Math.abs(value);
  return size >= 1e5 || (size && size < 1e-3) ? value.toExponential(2) : String(+value.toPrecision(4));
}

// A value ± its error, as `with_error` in Python: two digits of the error, as many decimals of the value.
function withError(value, error) {
  if (!error) return digits(value);
  const places = 1 - Number(error.toExponential(1).split("e")[1]);
  if (places < 0 || places > 6) return `${digits(value)} ± ${Number(error.toPrecision(2))}`;
  return `${value.toFixed(places)} ± ${error.toFixed(places)}`;
}

// The position of every epoch of a run on the x axis; null if it is unknown.
function positions(group, run, axis) {
  const epochs = run.rows.epoch;
  if (axis === "seconds") {
    let sum = 0;
    return run.rows.epoch_time?.map((t, e) => (sum += e ? t : 0)) ?? null;
  }
  if (axis === "epoch") return epochs;
  if (!group.examples || (axis === "passes" && !group.passes)) return null;
  return epochs.map((e) => e * group.examples * (axis === "passes" ? group.passes : 1));
}

// Mean and standard error over the included seeds, as long as all have rows; null if a position is unknown.
function curve(group, quantity, axis) {
  const runs = group.included.map((k) => group.runs[k]);
  const xs = runs.map((run) => positions(group, run, axis));
  if (!runs.length || xs.includes(null)) return null;
  const found = { x: [], y: [], error: [] };
  const last = Math.min(...runs.map((run) => run.rows.epoch.length));
  for (let e = 0; e < last; e++) {
    const values = runs.map((run) => run.rows[quantity]?.[e] ?? null);
    if (values.includes(null)) break;
    found.x.push(mean(xs.map((x) => x[e])));
    found.y.push(mean(values));
    found.error.push(error(values));
  }
  return found;
}

// The indices of the groups that pass the filter.
const filtered = () => rows.filter((row) => !row.hidden).map((row) => +row.dataset.group);

function option(select, value, text) {
  const one = document.createElement("option");
  one.value = value;
  one.textContent = text;
  select.append(one);
}

// Colours of a plot, from the page; light ones when printing.
function theme() {
  const style = getComputedStyle(document.documentElement);
  const property = (name) => style.getPropertyValue(name).trim();
  if (printing) return { text: "#1b1f24", line: "#d4d9df", ground: "#ffffff" };
  return { text: property("--text"), line: property("--line"), ground: property("--ground") };
}

const colour = (group, look) => (group.style.color === "#000000" ? look.text : group.style.color);
const faint = (hex) => `rgba(${[1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)).join(",")},0.2)`;
const safe = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"); // plotly interprets tags

function layout(look, height) {
  const axis = { gridcolor: look.line, linecolor: look.line, zeroline: false, automargin: true };
  return {
    height, width: printing ? 680 : undefined, autosize: !printing, showlegend: false, hovermode: "closest",
    margin: { l: 56, r: 14, t: 24, b: 50 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 13, color: look.text },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom", // a finger scrolls
    hoverlabel: { bgcolor: look.ground, font: { color: look.text } },
    xaxis: { ...axis }, yaxis: { ...axis },
  };
}
