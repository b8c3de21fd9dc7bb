// Charts share plotly.js, loaded when the first chart is drawn, and redrawn when the theme changes.
(() => {
  const { h } = TL;
  let loading = null;
  TL.plotly = () => {
    loading = loading || new Promise((resolve, reject) => {
      const tag = h("script", { src: document.querySelector('meta[name="tl-plotly"]').content });
      tag.onload = () => resolve(window.Plotly);
      tag.onerror = () => { loading = null; reject(new Error("plotly.js did not load")); };
      document.head.append(tag);
    });
    return loading;
  };

  const LIGHT = ["#0f766e", "#b45309", "#4338ca", "#be185d", "#4d7c0f", "#475569", "#0369a1", "#7c2d12"];
  const DARK = ["#2dd4bf", "#fbbf24", "#a5b4fc", "#f9a8d4", "#bef264", "#cbd5e1", "#7dd3fc", "#fdba74"];
  TL.dark = () => document.body.classList.contains("dark");
  TL.colour = (i) => (TL.dark() ? DARK : LIGHT)[i % LIGHT.length];
  TL.DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
  TL.SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down"];
  TL.PATTERNS = ["", "/", ".", "x", "-", "\\", "+", "|"];
  TL.short = (text, most = 40) => (text.length > most ? text.slice(0, most - 1) + "…" : text);

  // Plotly reads <b>, <br> and the like in its texts as markup: a user's text must not.
  TL.plain = (text) => TL.visibleInTable(String(text)).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

  const style = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();

  const axis = ({ title, ...extra }) => ({
    title: { text: TL.plain(title), font: { size: 12 } }, gridcolor: style("--tl-line"), zerolinecolor: style("--tl-line"), linecolor: style("--tl-line"), automargin: true, tickfont: { size: 11 }, exponentformat: "power", ...extra,
  });

  // chart(root, value, figure, columns, rows): figure() gives {traces, x, y, height}; the data are also a table.
  TL.chart = (root, value, figure, columns, rows) => {
    const plot = h("div", { class: "tl-plot", role: "img", "aria-label": value.alt });
    const table = h("div", { hidden: true });
    const asTable = TL.toggle("As a table", false, (on) => {
      if (on && !table.firstChild) table.append(TL.tableOf(columns, rows, { label: value.alt }));
      table.hidden = !on;
      plot.hidden = on;
    });
    TL.frame(root, value, asTable, TL.csvButton(value, columns, rows)).append(plot, table);
    const draw = async () => {
      const Plotly = await TL.plotly();
      if (!plot.isConnected) return;
      const { traces, x, y, height, layout = {} } = figure();
      await Plotly.react(plot, traces, {
        height, margin: { l: 56, r: 12, t: 8, b: 44 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: style("--tl-sans"), color: style("--tl-ink-2"), size: 12 }, xaxis: axis(x), yaxis: axis(y),
        legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }, hoverlabel: { font: { family: style("--tl-sans") } }, ...layout,
        showlegend: traces.filter((trace) => trace.showlegend !== false).length > 1,
      }, { displayModeBar: false, responsive: true });
      root.dataset.drawn = "1";
    };
    draw().catch((error) => { console.error(error); asTable.click(); });
    const observer = new MutationObserver(() => { if (!plot.isConnected) observer.disconnect(); else draw(); });
    observer.observe(document.body, { attributes: true, attributeFilter: ["class"] });
    const again = () => { if (plot.isConnected) draw(); else window.removeEventListener("tl-address", again); };
    window.addEventListener("tl-address", again);
  };
})();
