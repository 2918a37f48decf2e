// The rows of an experiment: one column against another, a line for each value of one or two more columns.

const FORMS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const MANY = 14; // lines at most, unless the experiment selects more
const { picture } = data;
const columnValues = (name) => { // "-name": with the opposite sign
  const column = data.columns.indexOf(name), sign = column < 0 ? -1 : 1;
  const found = data.rows.map((row) => row[column < 0 ? data.columns.indexOf(name.slice(1)) : column]);
  return sign > 0 ? found : found.map((v) => (v === null ? v : -v));
};
const distinct = (name) => [...new Set(columnValues(name))];
const lineName = (name, value) => (typeof value === "string" ? value : `${name} ${value ?? "none"}`);
const isNumeric = (name) => distinct(name).every((v) => v === null || typeof v === "number") && distinct(name).some((v) => v !== null);

function fillControls() {
  const numeric = data.columns.filter(isNumeric);
  const start = { x: picture.x || numeric[0], y: picture.y || numeric.at(-1) };
  for (const id of ["x", "y"]) {
    for (const name of new Set([...numeric, ...Object.values(start)])) option(at(id), name, name);
    at(id).value = start[id];
  }
  for (const [i, id] of ["by", "and"].entries()) {
    option(at(id), "", "nothing");
    for (const name of data.columns) if (distinct(name).length <= MANY || picture.by[i] === name) option(at(id), name, name);
    at(id).value = picture.by[i] ?? "";
  }
  for (const [name, value] of Object.entries(picture.where)) at("where").append(only(name, value));
  return numeric.length > 0;
}

// A control that selects rows by their value in one column.
function only(name, value) {
  const label = document.createElement("label"), select = document.createElement("select");
  label.append(`only ${name} `, select);
  select.dataset.column = name;
  option(select, "", "all");
  distinct(name).forEach((one, i) => option(select, i, String(one ?? "none")));
  select.value = distinct(name).indexOf(value);
  return label;
}

// The indices of the rows that pass the filter and the controls.
function selected() {
  const wanted = [...document.querySelectorAll("#where select")].filter((select) => select.value).map((select) => {
    const name = select.dataset.column, value = distinct(name)[select.value], all = columnValues(name);
    return (i) => all[i] === value;
  });
  return filtered().filter((i) => wanted.every((matches) => matches(i)));
}

// {x, y, n}: the mean of y over the rows of each x, ascending, and their number; without rows that lack a value.
function means(indices, x, y) {
  const found = new Map();
  for (const i of indices) if (x[i] !== null && y[i] !== null) found.set(x[i], [...(found.get(x[i]) ?? []), y[i]]);
  const xs = [...found.keys()].sort((p, q) => p - q);
  return { x: xs, y: xs.map((p) => mean(found.get(p))), n: xs.map((p) => found.get(p).length) };
}

// [{name, values, indices}]: the rows of each line, in the order of the values.
function lines(by) {
  const columns = by.map((name) => [name, columnValues(name), distinct(name)]), found = new Map();
  for (const i of selected()) {
    const values = columns.map(([, all, every]) => every.indexOf(all[i])), key = values.join();
    const name = columns.map(([own, all]) => lineName(own, all[i])).join(", ") || "all";
    found.set(key, found.get(key) ?? { name, values, indices: [] }).get(key).indices.push(i);
  }
  return [...found.values()].sort((p, q) => p.values.map((v, e) => v - q.values[e]).find(Boolean) ?? 0);
}

const spread = (all) => all.every((v) => v > 0) && Math.max(...all) > 100 * Math.min(...all); // needs a log scale

function draw() {
  const look = theme(), [x, y] = [at("x").value, at("y").value];
  const by = [...new Set([at("by").value, at("and").value])].filter(Boolean);
  const traces = lines(by).map(({ name, values: [k = 0, dash = 0], indices }) => {
    const found = means(indices, columnValues(x), columnValues(y)), plain = data.colours[k % data.colours.length];
    const own = plain === "#000000" ? look.text : plain, form = FORMS[(k + Math.floor(k / data.colours.length)) % FORMS.length];
    return {
      ...(found.x.length ? { x: found.x, y: found.y, name: safe(name) } : // plotly's legend leaves out empty traces
        { x: [null], y: [null], name: `${safe(name)} (no data)` }), mode: "lines+markers",
      line: { color: own, width: 2, dash: DASHES[dash % DASHES.length] }, marker: { color: own, symbol: form, size: 7 },
      hoverinfo: "text", text: found.x.map((p, e) => `${safe(name)}<br>${safe(x)} ${digits(p)}<br>${safe(y)} ` +
        `${digits(found.y[e])}${found.n[e] > 1 ? ` (mean of ${found.n[e]} rows)` : ""}`),
    };
  });
  const height = 430 + (matchMedia("(max-width: 600px)").matches ? 20 * traces.length : 0); // one legend entry per line
  const form = layout(look, height), title = { text: safe(by.join(", ")), font: { color: look.text } };
  const legend = { orientation: "h", yref: "container", y: 0, yanchor: "bottom", font: { color: look.text }, title };
  Object.assign(form, { showlegend: by.length > 0, legend });
  at("curves").style.height = `${height}px`;
  for (const [axis, id, name] of [["xaxis", "x", x], ["yaxis", "y", y]]) {
    const log = name === picture[id] ? picture.log.includes(id) : spread(traces.flatMap((trace) => trace[id]));
    Object.assign(form[axis], {
      title: { text: safe(name) + (log ? " (log scale)" : "") }, type: log ? "log" : "linear", exponentformat: "power",
    });
  }
  Plotly.react("curves", traces, form, CONFIG);
}

for (const row of rows) { // the table sorts by the exact values
  data.rows[row.dataset.group].forEach((value, i) => {
    if (typeof value !== "string") row.children[i].dataset.value = value ?? "";
  });
}
at("explore").hidden = !fillControls(); // without numeric columns there is no plot
for (const select of document.querySelectorAll("#explore select")) select.addEventListener("change", draw);
begin();
