// A heat map of the score over two numbers in which groups differ.

const number = (group, key) => group.options[key] ?? group.arguments[key];

// Scores of the finished runs of a cell, after their last epoch, and the number of other runs.
function cell(groups, across, up, x, y) {
  const own = groups.filter((group) => number(group, across.key) === x && number(group, up.key) === y);
  const runs = own.flatMap((group) => group.runs), finished = runs.filter((run) => run.status === "finished");
  const values = finished.map((run) => run.rows[data.score]?.at(-1)).filter((v) => v !== undefined && v !== null);
  return { values, others: runs.length - values.length };
}

function hoverText({ values, others }, position) {
  const score = values.length ? `${withError(mean(values), error(values))} ${SCORE.unit}` : `no ${SCORE.label}`;
  return `${safe(position)}<br>${score} (${values.length} finished${others ? `, ${others} not` : ""})`;
}

// The column and the row of the highest value; null if all are empty.
function best(z) {
  const top = Math.max(...z.flat().filter((v) => v !== null));
  const y = z.findIndex((line) => line.includes(top));
  return y < 0 ? null : { x: z[y].indexOf(top), y };
}

// Values are equally spaced: at 0, 1, 2, ...
const ticks = ({ key, values, texts }) => ({
  title: { text: safe(key) }, showgrid: false, tickvals: [...values.keys()], ticktext: texts,
  range: [-0.5, values.length - 0.5],
});

const annotation = (text, x, y, color) => ({ x, y, text, showarrow: false, font: { size: 12, color } });

// White on dark colours, black on bright ones.
function ink(value, z, look) {
  const all = z.flat().filter((v) => v !== null);
  return value === null ? look.text : 2 * value < Math.min(...all) + Math.max(...all) ? "#ffffff" : "#000000";
}

function drawMap() {
  if (data.axes.length < 2) return;
  const look = theme(), [across, up] = [at("map-x"), at("map-y")].map((select) => data.axes[+select.value]);
  const otherTask = (group) => group.runs.some((run) => run.rows.epoch.length && !run.rows[data.score]);
  const groups = filtered().map((i) => data.groups[i]).filter((group) => !otherTask(group));
  const cells = up.values.map((y) => across.values.map((x) => cell(groups, across, up, x, y)));
  const over = (f) => cells.map((line, y) => line.map((one, x) => f(one, x, y)));
  const z = over(({ values }) => (values.length ? mean(values) : null)), top = best(z);
  const star = (x, y) => (top && x === top.x && y === top.y ? "★ " : "");
  const room = (at("map").clientWidth - 150) / across.values.length > 40; // for numbers
  const text = over(({ values, others }, x, y) => (
    values.length ? star(x, y) + (room ? mean(values).toFixed(SCORE.unit === "%" ? 1 : 3) : "") : others && room ? "none<br>finished" : ""));
  const hover = over((one, x, y) => hoverText(one, `${across.key} ${across.texts[x]}, ${up.key} ${up.texts[y]}`));
  const form = layout(look, Math.min(560, 130 + 56 * up.values.length));
  Object.assign(form.xaxis, ticks(across));
  Object.assign(form.yaxis, ticks(up));
  form.annotations = over((one, x, y) => annotation(text[y][x], x, y, ink(z[y][x], z, look))).flat();
  if (top) {
    const frame = { x0: top.x - 0.5, x1: top.x + 0.5, y0: top.y - 0.5, y1: top.y + 0.5 };
    form.shapes = [{ type: "rect", ...frame, line: { color: "#d55e00", width: 4 } }];
  }
  Plotly.react("map", [{
    type: "heatmap", x: [...across.values.keys()], y: [...up.values.keys()], z, text, hovertext: hover, hoverinfo: "text",
    colorscale: "Cividis", xgap: 1, ygap: 1, hoverongaps: true,
    colorbar: { title: { text: SCORE.unit || SCORE.label }, thickness: 12, outlinewidth: 0 },
  }], form, CONFIG);
  const without = groups.filter((group) => [across, up].some((axis) => number(group, axis.key) === undefined));
  at("map-note").textContent = `Mean ${SCORE.label} after the last epoch over all finished runs of a cell, `
    + "including runs that differ in other options. A frame and a star mark the best."
    + (without.length ? ` Rows of the table without these numbers are not shown: ${without.length}.` : "");
}
