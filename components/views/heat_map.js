// A matrix as a table of shaded cells with their values: readable without the colour.
TL.views.HeatMap = (root, value) => {
  const { h } = TL;
  const known = value.values.flat().filter((v) => v !== null);
  const low = Math.min(...known), span = Math.max(...known) - low || 1;
  const columns = [value.y, ...value.columns];
  const framed = { ...value, note: [value.note, value.unit && `In ${value.unit}.`].filter(Boolean).join(" ") };
  const body = TL.frame(root, framed, TL.csvButton(value, columns, value.values.map((line, r) => [value.rows[r], ...line])));
  root.tlValue = value;
  body.append(h("div", { class: "tl-scroll", tabindex: "0", role: "region", "aria-label": value.alt }, h("table", { class: "tl-table tl-heat" },
    h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, value.values.map((line, r) => h("tr", {}, h("th", { scope: "row" }, value.rows[r]), line.map((v) => h("td", { class: "num", style: v === null ? null : `--tl-shade:${(v - low) / span}` }, v === null ? "–" : TL.number(v)))))))));
};
