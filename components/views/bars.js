// Bars per category, with intervals; series differ by pattern as well as by colour.
TL.views.Bars = (root, value) => {
  const names = Object.keys(value.series);
  const figure = () => {
    const flat = value.horizontal;
    const categories = value.categories.map((name) => TL.short(TL.plain(name)));
    const traces = names.map((name, i) => {
      const numbers = value.series[name], low = value.low[name], high = value.high[name];
      const error = low && high ? { type: "data", symmetric: false, array: high.map((v, k) => v - numbers[k]), arrayminus: low.map((v, k) => numbers[k] - v), thickness: 1, width: 2 } : undefined;
      return {
        type: "bar", name: TL.plain(name), orientation: flat ? "h" : "v", x: flat ? numbers : categories, y: flat ? categories : numbers, [flat ? "error_x" : "error_y"]: error,
        marker: { color: TL.colour(i), pattern: { shape: TL.PATTERNS[i % TL.PATTERNS.length], solidity: 0.2, fgcolor: TL.dark() ? "#111" : "#fff", fillmode: "overlay" } },
        hovertemplate: `%{${flat ? "y" : "x"}}: %{${flat ? "x" : "y"}:.4g}<extra>${TL.plain(name)}</extra>`,
      };
    });
    const bar = value.stacked ? "stack" : "group";
    const height = flat ? 90 + categories.length * Math.max(20, value.stacked ? 0 : names.length * 9) : 320;
    const category = { type: "category", title: value.x };
    return flat
      ? { traces, x: { title: value.y }, y: { ...category, title: "", autorange: "reversed" }, height, layout: { barmode: bar, bargap: 0.25 } }
      : { traces, x: category, y: { title: value.y }, height, layout: { barmode: bar, bargap: 0.25 } };
  };
  const rows = value.categories.map((category, c) => [category, ...names.flatMap((name) => [value.series[name][c], ...(value.low[name] ? [value.low[name][c], value.high[name][c]] : [])])]);
  const columns = [value.x, ...names.flatMap((name) => [name, ...(value.low[name] ? [`${name}, low`, `${name}, high`] : [])])];
  TL.chart(root, value, figure, columns, rows);
};
