// An experiment's rows, drawn as one likes: a column against another, a line for each value of a third.

const FORMS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x"];
const MANY = 14; // lines at most
const values = (name) => data.rows.map((row) => row[data.columns.indexOf(name)]);
const kinds = (name) => new Set(values(name));
const numeric = data.columns.filter((name) => values(name).every((v) => v === null || typeof v === "number"));

function choices() {
  const parameters = numeric.filter((name) => kinds(name).size > 1);
  for (const id of ["x", "y"]) for (const name of parameters) option(at(id), name, name);
  option(at("by"), "", "nothing");
  for (const name of data.columns) if (kinds(name).size > 1 && kinds(name).size <= MANY) option(at("by"), name, name);
  const half = parameters.slice(0, Math.max(1, Math.ceil(parameters.length / 2)));
  const x = half.reduce((best, name) => (kinds(name).size > kinds(best).size ? name : best), half[0]);
  const results = parameters.filter((name) => name !== x && kinds(name).size > data.rows.length / 2);
  const words = data.columns.filter((name) => !numeric.includes(name) && kinds(name).size > 1 && kinds(name).size <= MANY);
  at("x").value = x;
  at("y").value = results[0] ?? parameters.find((name) => name !== x) ?? x;
  at("by").value = words[0] ?? "";
}

// {x, y}: the mean of y over the rows of each x, upwards; without those that have no figure.
function means(numbers, x, y) {
  const found = new Map();
  for (const i of numbers) {
    const [p, q] = [data.rows[i][x], data.rows[i][y]];
    if (p !== null && q !== null) found.set(p, [...(found.get(p) ?? []), q]);
  }
  const places = [...found.keys()].sort((p, q) => p - q);
  return { x: places, y: places.map((p) => mean(found.get(p))), n: places.map((p) => found.get(p).length) };
}

const spread = (all) => all.every((v) => v > 0) && Math.max(...all) > 100 * Math.min(...all); // for a log scale

function draw() {
  const look = theme(), [x, y, by] = ["x", "y", "by"].map((id) => data.columns.indexOf(at(id).value));
  const groups = new Map();
  for (const i of chosen()) {
    const key = by < 0 ? "" : data.rows[i][by];
    groups.set(key, [...(groups.get(key) ?? []), i]);
  }
  const traces = [...groups].map(([key, numbers], k) => {
    const found = means(numbers, x, y), plain = data.colours[k % data.colours.length];
    const own = plain === "#000000" ? look.text : plain, name = by < 0 ? "all" : `${data.columns[by]} ${key}`;
    return {
      x: found.x, y: found.y, name: safe(name), mode: "lines+markers", hoverinfo: "text",
      line: { color: own, width: 2 }, marker: { color: own, symbol: FORMS[k % FORMS.length], size: 7 },
      text: found.x.map((p, e) => `${safe(name)}<br>${safe(at("x").value)} ${digits(p)}<br>${safe(at("y").value)} ` +
        `${digits(found.y[e])}${found.n[e] > 1 ? ` (mean of ${found.n[e]} rows)` : ""}`),
    };
  });
  const form = layout(look, 430);
  Object.assign(form, { showlegend: by >= 0, legend: { orientation: "h", y: -0.25, font: { color: look.text } } });
  form.margin.b = 80;
  for (const [axis, key, id] of [["xaxis", "x", "x"], ["yaxis", "y", "y"]]) {
    const log = spread(traces.flatMap((trace) => trace[key]));
    Object.assign(form[axis], { title: { text: safe(at(id).value) + (log ? " (log scale)" : "") }, type: log ? "log" : "linear" });
  }
  Plotly.react("curves", traces, form, CONFIG);
}

for (const row of rows) { // by what the table sorts: the figures themselves
  data.rows[row.dataset.group].forEach((value, i) => {
    if (typeof value !== "string") row.children[i].dataset.value = value ?? "";
  });
}
choices();
for (const id of ["x", "y", "by"]) at(id).addEventListener("change", draw);
begin();
