// A table: numbers right-aligned, headings sort, definitions on demand, CSV to take away.
(() => {
  const { h } = TL;
  const PAGE = 100;
  const LONG = 80;

  // A long cell shows its beginning; the rest unfolds.
  const folded = (text) => h("details", { class: "tl-long" }, h("summary", {}, text.slice(0, LONG) + "…"), text.slice(LONG));

  // A cell that a spreadsheet would run as a formula gets a leading apostrophe.
  const csvCell = (value) => {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@\t\r]/.test(String(value)) ? "'" + value : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };

  TL.csv = (columns, rows) => [columns, ...rows].map((row) => row.map(csvCell).join(",")).join("\n") + "\n";

  TL.csvButton = (value, columns, rows) =>
    TL.button("CSV", () => TL.download(`${value.title.toLowerCase().replace(/[^a-z0-9]+/g, "-")}.csv`, TL.csv(columns, rows), "text/csv"), { title: "Download this table as CSV" });

  // The element for columns x rows; marks: row -> word shown in front.
  TL.tableOf = (columns, rows, { help = {}, marks = {}, label = "" } = {}) => {
    const order = rows.map((_, i) => i);
    let shown = Math.min(PAGE, rows.length), sorted = null, up = true;
    const body = h("tbody");
    const more = h("p", { class: "tl-more" });
    const isNumber = columns.map((_, c) => rows.some((row) => typeof row[c] === "number"));
    const fill = () => {
      body.replaceChildren(...order.slice(0, shown).map((r) => h("tr", { class: marks[r] ? "marked" : null }, rows[r].map((cell, c) => {
        const text = typeof cell === "number" ? TL.number(cell) : cell === null ? "–" : typeof cell === "boolean" ? (cell ? "yes" : "no") : TL.visibleInTable(String(cell));
        const mark = c === 0 && marks[r] ? h("span", { class: "tl-mark" }, marks[r]) : null;
        return h(c === 0 ? "th" : "td", { scope: c === 0 ? "row" : null, class: isNumber[c] ? "num" : c > 0 && text.length <= 40 ? "short" : null }, mark, text.length > LONG ? folded(text) : text);
      }))));
      more.replaceChildren(...(shown < rows.length ? [TL.button(`Show ${Math.min(PAGE, rows.length - shown)} more of ${rows.length.toLocaleString("en-US")}`, () => { shown += PAGE; fill(); })] : []));
    };
    const sort = (c) => {
      up = sorted === c ? !up : !isNumber[c];
      sorted = c;
      order.sort((a, b) => {
        const [x, y] = [rows[a][c], rows[b][c]];
        if (x === null || y === null) return (x === null) - (y === null);
        return (up ? 1 : -1) * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y)));
      });
      head.querySelectorAll("th").forEach((th, k) => th.setAttribute("aria-sort", k === c ? (up ? "ascending" : "descending") : "none"));
      fill();
    };
    const head = h("tr", {}, columns.map((name, c) => h("th", { scope: "col", class: isNumber[c] ? "num" : null, "aria-sort": "none" }, h("button", { type: "button", onclick: () => sort(c), title: help[name] || "Sort by this column" }, name))));
    fill();
    // `help` explains headings of columns or of rows.
    const definitions = [...columns, ...rows.map((row) => row[0])].filter((name) => help[name]);
    return h("div", {},
      h("div", { class: "tl-scroll", tabindex: "0", role: "region", "aria-label": label }, h("table", { class: "tl-table" }, h("thead", {}, head), body)), more,
      definitions.length ? h("details", { class: "tl-definitions" }, h("summary", {}, "What the columns mean"), h("dl", {}, definitions.map((name) => [h("dt", {}, name), h("dd", {}, help[name])]))) : null);
  };

  // Characters without a shape are named; ordinary spaces stay as they are.
  TL.visibleInTable = (text) => {
    let out = "";
    for (const character of text) {
      const name = character === " " ? null : TL.invisibleName(character);
      out += name === null ? character : name.length === 1 ? name : `⟨${name}⟩`;
    }
    return out;
  };

  TL.views.Table = (root, value) => {
    const body = TL.frame(root, value, TL.csvButton(value, value.columns, value.rows));
    body.append(TL.tableOf(value.columns, value.rows, { help: value.help, marks: value.marks, label: value.alt }));
  };
})();
