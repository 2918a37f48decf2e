// A table that sorts and filters; the plots show the filtered rows.

function sort(head) {
  const heads = [...head.parentNode.children], column = heads.indexOf(head);
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const one of heads) one.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = (row) => row.children[column].dataset.value ?? row.children[column].textContent;
  const numeric = rows.every((row) => "value" in row.children[column].dataset);
  rows.sort((a, b) => {
    const [p, q] = [key(a), key(b)];
    if (p === "" || q === "") return (p === "") - (q === ""); // without a value: at the end
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
  const count = filtered().length;
  at("shown").textContent = count < rows.length ? `${count} of ${rows.length}` : "";
  draw();
}

function setPrinting(value) {
  printing = value;
  if (value) for (const one of document.querySelectorAll("details")) one.open = true;
  draw();
}

// Connect the controls, and draw for the first time.
function begin() {
  for (const head of document.querySelectorAll("thead th")) {
    head.querySelector("button").addEventListener("click", () => sort(head));
  }
  at("filter").addEventListener("input", filter);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("beforeprint", () => setPrinting(true));
  addEventListener("afterprint", () => setPrinting(false));
  filter();
}
