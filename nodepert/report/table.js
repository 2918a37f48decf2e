// A table that sorts and filters; what it leaves is drawn.

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

function onPaper(now) {
  printing = now;
  if (now) for (const one of document.querySelectorAll("details")) one.open = true;
  draw();
}

// When all is there: what is clicked, typed, or shown otherwise.
function begin() {
  for (const head of document.querySelectorAll("thead th")) {
    head.querySelector("button").addEventListener("click", () => sort(head));
  }
  at("filter").addEventListener("input", filter);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("beforeprint", () => onPaper(true));
  addEventListener("afterprint", () => onPaper(false));
  filter();
}
