// Curves with intervals; series differ by dash and marker as well as by colour.
TL.views.Lines = (root, value) => {
  const figure = () => {
    const traces = [];
    value.series.forEach((series, i) => {
      const colour = TL.colour(i);
      if (series.low.length) {
        traces.push({
          x: [...series.x, ...[...series.x].reverse()], y: [...series.high, ...[...series.low].reverse()], fill: "toself", fillcolor: colour, opacity: 0.15, line: { width: 0 }, mode: "lines", hoverinfo: "skip", showlegend: false, type: "scatter",
        });
      }
      const many = series.x.length > 60;
      traces.push({
        type: "scatter", name: TL.plain(series.name), x: series.x, y: series.y, mode: series.points ? (series.labels.length ? "markers+text" : "markers") : many ? "lines" : "lines+markers",
        text: series.labels.map(TL.plain), textposition: "top center", textfont: { size: 11 }, cliponaxis: false,
        line: { color: colour, width: 2, dash: TL.DASHES[i % TL.DASHES.length] }, marker: { color: colour, size: series.points ? 9 : 6, symbol: TL.SYMBOLS[i % TL.SYMBOLS.length] },
        hovertemplate: `%{x:.4g}: %{y:.4g}<extra>${TL.plain(series.name)}</extra>`,
      });
    });
    return { traces, x: { title: value.x, ...scale(value.log_x) }, y: { title: value.y, type: value.log_y ? "log" : "linear", autorange: value.reverse_y ? "reversed" : true }, height: 340 };
  };
  // On a log axis the few places where something was measured say more than Plotly's 10, 2, 3, 4.
  function scale(log) {
    const places = [...new Set(value.series.flatMap((series) => series.x))];
    if (!log) return { type: "linear" };
    return places.length > 8 ? { type: "log" } : { type: "log", tickvals: places, ticktext: places.map(TL.number) };
  }
  const rows = value.series.flatMap((series) => series.x.map((x, i) => [series.name, x, series.y[i], series.low.length ? series.low[i] : null, series.low.length ? series.high[i] : null]));
  TL.chart(root, value, figure, ["series", value.x, value.y, "low", "high"], rows);
};
