// The controls of a study's report.

function draw() {
  drawCurves();
  drawMap();
}

function fillControls() {
  for (const [key, { title }] of Object.entries(QUANTITIES)) option(at("quantity"), key, title);
  const known = (axis) => data.groups.some((group) => group.runs.some((run) => positions(group, run, axis)));
  for (const [key, text] of Object.entries(AXES)) if (known(key)) option(at("axis"), key, text);
  const count = data.groups.length;
  for (const most of [FEW, 3 * FEW]) if (most < count) option(at("most"), most, `the ${most} best by ${SCORE.label}`);
  option(at("most"), 0, `all ${count}`);
  at("most-label").hidden = count <= FEW;
  for (const id of ["map-x", "map-y"]) data.axes.forEach((axis, i) => option(at(id), i, axis.key));
  at("map-section").hidden = data.axes.length < 2;
  if (data.axes.length > 1) at("map-y").value = "1";
}

// The axes of the map stay different: the other one gets the previous value of this one.
function keepApart(select, other) {
  let before = select.value;
  select.addEventListener("focus", () => (before = select.value));
  select.addEventListener("change", () => {
    if (select.value === other.value) other.value = before;
    before = select.value;
    drawMap();
  });
}

fillControls();
for (const id of ["quantity", "axis", "most"]) at(id).addEventListener("change", drawCurves);
keepApart(at("map-x"), at("map-y"));
keepApart(at("map-y"), at("map-x"));
begin();
