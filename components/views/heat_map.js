// A matrix: a table of shaded cells when it is small, a canvas to point at when it is large.
(() => {
  const { h } = TL;
  const TABLE_CELLS = 600;

  // Draw now, and again whenever the node changes its width or the page its theme.
  TL.redraw = (node, draw) => {
    const theme = new MutationObserver(() => (node.isConnected ? draw() : theme.disconnect()));
    theme.observe(document.body, { attributes: true, attributeFilter: ["class"] });
    new ResizeObserver(draw).observe(node);
  };

  // One pixel per cell, scaled to the canvas. shade(row, column): 0 to 1, or null where nothing is drawn.
  TL.pixels = (canvas, rows, columns, shade) => {
    const box = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
    if (!box.width || !rows || !columns) return;
    canvas.width = Math.round(box.width * ratio);
    canvas.height = Math.round(box.height * ratio);
    const small = h("canvas", { width: columns, height: rows });
    const pen = small.getContext("2d"), image = pen.createImageData(columns, rows);
    const rgb = getComputedStyle(document.body).getPropertyValue("--tl-shade-rgb").trim().split(/\s+/).map(Number);
    for (let r = 0, i = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++, i += 4) {
        const value = shade(r, c);
        image.data.set(rgb, i);
        image.data[i + 3] = value === null ? 0 : Math.round(255 * (0.06 + 0.94 * value));
      }
    }
    pen.putImageData(image, 0, 0);
    const large = canvas.getContext("2d");
    large.imageSmoothingEnabled = columns > canvas.width || rows > canvas.height;
    large.drawImage(small, 0, 0, canvas.width, canvas.height);
  };

  // Cells to point at and to walk with the arrow keys: {node, draw, move, point}. say(row, column) reads a cell out;
  // point outlines it only. height: in px, else cells are square. paint(canvas): draws them instead of shade.
  TL.cells = ({ rows, columns, shade, height, label, say, paint = (canvas) => TL.pixels(canvas, rows, columns, shade) }) => {
    let at = null;
    const canvas = h("canvas", { style: height ? `height:${height}px` : `aspect-ratio:${columns}/${rows}` });
    const cursor = h("i", { class: "tl-rt-cursor", hidden: true });
    const node = h("div", { class: "tl-rt-cells", tabindex: "0", role: "application", "aria-roledescription": "matrix", "aria-label": `${label} Arrow keys move from cell to cell.` }, canvas, cursor);
    const inside = (value, end) => Math.max(0, Math.min(end - 1, value));
    const point = (r, c) => {
      at = [inside(r, rows), inside(c, columns)];
      cursor.hidden = false;
      cursor.style.cssText = `top:${(100 * at[0]) / rows}%;left:${(100 * at[1]) / columns}%;height:${100 / rows}%;width:${100 / columns}%`;
    };
    const move = (r, c) => {
      point(r, c);
      say(...at);
    };
    const pointed = (event) => {
      const box = canvas.getBoundingClientRect();
      move(Math.floor(((event.clientY - box.top) / box.height) * rows), Math.floor(((event.clientX - box.left) / box.width) * columns));
    };
    node.addEventListener("pointermove", pointed);
    node.addEventListener("pointerdown", pointed);
    node.addEventListener("focus", () => { if (!at) move(0, 0); });
    node.addEventListener("keydown", (event) => {
      const [r, c] = at || [0, 0];
      const target = { ArrowUp: [r - 1, c], ArrowDown: [r + 1, c], ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1], Home: [r, 0], End: [r, columns - 1], PageUp: [0, c], PageDown: [rows - 1, c] }[event.key];
      if (!target) return;
      event.preventDefault();
      move(...target);
    });
    const draw = () => paint(canvas);
    TL.redraw(canvas, draw);
    return { node, draw, move, point };
  };

  const asTable = (value, columns, shade) => h("div", { class: "tl-scroll", tabindex: "0", role: "region", "aria-label": value.alt }, h("table", { class: "tl-table tl-heat" },
    h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, value.values.map((line, r) => h("tr", {}, h("th", { scope: "row" }, value.rows[r]), line.map((v) => h("td", { class: "num", style: v === null ? null : `--tl-shade:${shade(v)}` }, v === null ? "–" : TL.number(v))))))));

  // Labels beside or below the picture: as many as there is room for.
  const thinned = (labels, room, place) => {
    const every = Math.max(1, Math.ceil(labels.length / Math.max(1, room)));
    return labels.map((label, i) => (i % every ? null : h("span", { style: `${place}:${(100 * (i + 0.5)) / labels.length}%`, title: TL.visibleInTable(label) }, TL.visibleInTable(label) || "\u00a0")));
  };

  const named = (axis, label) => (label.startsWith(axis) ? "" : `${axis} `) + TL.visibleInTable(label);

  const asPicture = (value, low, high, shade) => {
    const rows = value.rows.length, columns = value.columns.length, unit = value.unit ? ` ${value.unit}` : "";
    const height = Math.round(rows * Math.max(3, Math.min(22, 420 / rows)));
    const readout = h("p", { class: "tl-rt-readout", "aria-live": "polite" }, "Point at the picture, or move with the arrow keys, to read a cell.");
    const say = (r, c) => {
      const v = value.values[r][c];
      readout.textContent = `${named(value.y, value.rows[r])}, ${named(value.x, value.columns[c])}: ${v === null ? "nothing" : TL.number(v) + unit}`;
    };
    const { node } = TL.cells({ rows, columns, height, label: value.alt, say, shade: (r, c) => { const v = value.values[r][c]; return v === null ? null : shade(v); } });
    const left = h("div", { class: "tl-rt-y", "aria-hidden": "true" }), below = h("div", { class: "tl-rt-x", "aria-hidden": "true" });
    TL.redraw(node, () => {
      if (!node.clientWidth) return;
      left.replaceChildren(...thinned(value.rows, height / 15, "top").filter(Boolean));
      below.replaceChildren(...thinned(value.columns, node.clientWidth / 60, "left").filter(Boolean));
    });
    return h("div", { class: "tl-rt-heat" },
      h("span", { class: "tl-rt-axis", "aria-hidden": "true" }, `${value.y} ↓  ${value.x} →`), left, node, below,
      h("p", { class: "tl-legend" }, h("span", {}, TL.number(low), " ", h("i", { class: "tl-rt-ramp", "aria-hidden": "true" }), ` ${TL.number(high)}${unit}`)), readout);
  };

  TL.views.HeatMap = (root, value) => {
    let low = Infinity, high = -Infinity;
    for (const line of value.values) for (const v of line) if (v !== null) { low = Math.min(low, v); high = Math.max(high, v); }
    const shade = (v) => (v - low) / (high - low || 1);
    const columns = [value.y, ...value.columns];
    const small = value.rows.length * value.columns.length <= TABLE_CELLS || low === Infinity;
    const framed = { ...value, note: [value.note, small && value.unit && `In ${value.unit}.`].filter(Boolean).join(" ") };
    const body = TL.frame(root, framed, TL.csvButton(value, columns, value.values.map((line, r) => [value.rows[r], ...line])));
    root.tlValue = value;
    body.append(small ? asTable(value, columns, shade) : asPicture(value, low, high, shade));
  };
})();
