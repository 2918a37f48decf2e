// The table that sorts and filters, what can be chosen, and when all is drawn.

function sort(head) {
  const heads = [...head.parentNode.children], column = heads.indexOf(head);
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const one of heads) one.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = (row) => row.children[column].dataset.value ?? row.children[column].textContent;
  const numeric = rows.every((row) => "value" in row.children[column].dataset);
  rows.sort((a, b) => {
    const [p, q] = [key(a), key(b)];
    if (p === "" || q === "") return (p === "") - (q === ""); // without a figure: at the end
    return (up ? 1 : -1) * (numeric ? p - q : p.localeCompare(q, "en", { numeric: true }));
  });
  document.querySelector("tbody").append(...rows);
}

function filter() {
  const words = at("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of rows) {
    const text = [...row.children].map((one) => one.textContent).join(" ").toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
  const left = chosen().length;
  at("shown").textContent = left < rows.length ? `${left} of ${rows.length}` : "";
  draw();
}

function draw() {
  drawCurves();
  drawMap();
}

function choices() {
  for (const [key, text] of Object.entries(QUANTITIES)) option(at("quantity"), key, text);
  const known = (axis) => data.groups.some((group) => group.runs.some((run) => places(group, run, axis)));
  for (const [key, text] of Object.entries(AXES)) if (known(key)) option(at("axis"), key, text);
  const count = data.groups.length;
  for (const most of [FEW, 3 * FEW]) if (most < count) option(at("most"), most, `the ${most} best by test accuracy`);
  option(at("most"), 0, `all ${count}`);
  at("most-label").hidden = count <= FEW;
  for (const id of ["map-x", "map-y"]) data.axes.forEach((axis, i) => option(at(id), i, axis.key));
  at("map-section").hidden = data.axes.length < 2;
  if (data.axes.length > 1) at("map-y").value = "1";
}

// The axes of the map stay different: the other one takes the place that this one had.
function keepApart(select, other) {
  let before = select.value;
  select.addEventListener("focus", () => (before = select.value));
  select.addEventListener("change", () => {
    if (select.value === other.value) other.value = before;
    before = select.value;
    drawMap();
  });
}

function onPaper(now) {
  printing = now;
  if (now) for (const one of document.querySelectorAll("details")) one.open = true;
  draw();
}

choices();
for (const head of document.querySelectorAll("thead th")) {
  head.querySelector("button").addEventListener("click", () => sort(head));
}
at("filter").addEventListener("input", filter);
for (const id of ["quantity", "axis", "most"]) at(id).addEventListener("change", drawCurves);
keepApart(at("map-x"), at("map-y"));
keepApart(at("map-y"), at("map-x"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
addEventListener("beforeprint", () => onPaper(true));
addEventListener("afterprint", () => onPaper(false));
filter();
