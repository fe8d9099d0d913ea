"use strict";
(() => {
  const { key } = JSON.parse(document.getElementById("page-data").textContent);
  const body = document.querySelector("#cases tbody");
  const told = document.getElementById("told");
  const rows = [...body.rows];

  function load() {
    try {
      return JSON.parse(localStorage.getItem(key)) ?? {};
    } catch {
      return {};
    }
  }
  let ratings = load();

  function store() {
    try {
      localStorage.setItem(key, JSON.stringify(ratings));
      told.textContent = "";
    } catch {
      told.textContent = "This browser keeps nothing for this page: export before you close it.";
    }
  }

  for (const row of rows) {
    const name = row.dataset.case;
    const rating = row.querySelector(".rating"), remark = row.querySelector(".remark");
    const kept = Object.hasOwn(ratings, name) ? ratings[name] : {};
    rating.value = kept.rating ?? "";
    remark.value = kept.note ?? "";
    row.dataset.rating = rating.value;
    const changed = () => {
      row.dataset.rating = rating.value;
      ratings = { ...ratings, [name]: { rating: rating.value, note: remark.value } };
      store();
    };
    rating.addEventListener("change", changed);
    remark.addEventListener("input", changed);
  }

  const content = (row, column, kind) => {
    const cell = row.cells[column];
    if (kind === "number") return cell.dataset.value === "" ? NaN : Number(cell.dataset.value);
    return cell.querySelector("select")?.value ?? cell.textContent.trim();
  };

  for (const button of document.querySelectorAll("#cases thead button")) {
    button.addEventListener("click", () => {
      const head = button.parentElement, column = head.cellIndex, kind = button.dataset.kind;
      /* Numbers first from the highest down. */
      const before = head.getAttribute("aria-sort");
      const down = before ? before === "ascending" : kind === "number";
      for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sign = down ? -1 : 1;
      rows.sort((a, b) => {
        const [x, y] = [content(a, column, kind), content(b, column, kind)];
        if (kind === "text") return sign * x.localeCompare(y, undefined, { numeric: true });
        /* Cases without a value come last either way. */
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
        return sign * (x - y);
      });
      body.append(...rows);
    });
  }

  document.getElementById("filter").addEventListener("input", (event) => {
    const sought = event.target.value.trim().toLowerCase();
    for (const row of rows) {
      const text = [row.dataset.case, row.dataset.rating, ...[...row.querySelectorAll(".flag")].map((flag) => flag.textContent)];
      row.hidden = !text.join(" ").toLowerCase().includes(sought);
    }
  });

  document.getElementById("export").addEventListener("click", () => {
    const clean = (text) => String(text).replace(/\s+/g, " ").trim();
    const lines = rows.map((row) => [row.dataset.case, row.dataset.rating, row.querySelector(".remark").value].map(clean).join("\t"));
    const file = new Blob([["case\trating\tnote", ...lines].join("\n") + "\n"], { type: "text/tab-separated-values" });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(file);
    link.download = "ratings.tsv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    told.textContent = `${rows.length} cases exported.`;
  });
})();
