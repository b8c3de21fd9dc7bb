// Heat maps over one picture: all of them small, one of them large, each weight to be read.
(() => {
  const { h } = TL;
  const THUMB = 52; // px

  TL.views.PatchMaps = (root, value) => {
    const [rows, columns] = value.grid, { maps, lines } = value;
    const unit = value.unit ? ` ${value.unit}` : "";
    const header = maps.reduce((longest, line) => (line.length > longest.length ? line : longest), []).map((map) => map.name);
    const plain = maps.map((line) => line.every((map, k) => map.name === header[k])); // lines that the header names
    // What was chosen stays when another picture is drawn.
    const state = (root.tlMaps = root.tlMaps || { at: null, heat: 65 });
    let at = state.at && (maps[state.at[0]] || [])[state.at[1]] ? state.at : value.chosen;
    let picture = null, grey = null, ramp = null, last = null;

    const csv = TL.button("CSV", save, { title: "Download the weights of this map, a line for each row of patches; to within 0.4 % of the largest" });
    const body = TL.frame(root, value, csv);
    const heat = h("input", { type: "range", min: "0", max: "100", step: "5", value: String(state.heat), "aria-label": "From the picture alone to the weights alone", oninput: () => { state.heat = Number(heat.value); paintAll(); } });
    const grid = h("div", { class: "tl-pm-grid", role: "listbox", "aria-label": "Maps", style: `--tl-pm-columns:${header.length};--tl-pm-thumb:${THUMB}px` });
    const title = h("h4", {}), facts = h("dl", { class: "tl-am-facts" });
    const readout = h("p", { class: "tl-rt-readout", "aria-live": "polite" });
    const legend = h("p", { class: "tl-legend" });
    const hint = "Point at the picture, or move with the arrow keys, to read a weight.";
    const stage = TL.cells({
      rows, columns, label: value.alt,
      paint: (canvas) => paint(canvas, at, window.devicePixelRatio || 1),
      say: (r, c) => { last = [r, c]; tell(); },
    });
    stage.node.classList.add("tl-po-stage");
    const frame = h("div", { class: "tl-pm" },
      h("div", { class: "tl-pm-bird" }, grid),
      h("div", { class: "tl-pm-one" }, title, facts, stage.node, readout, legend,
        h("label", { class: "tl-pm-mix" }, h("span", {}, "picture"), heat, h("span", {}, "weights"))));
    body.append(frame);

    const nameOf = ([line, k]) => [lines[line], maps[line][k].name].filter(Boolean).join(", ");
    const cells = maps.flatMap((line, l) => line.map((map, k) => {
      const canvas = h("canvas", { "aria-hidden": "true", style: `aspect-ratio:${columns}/${rows}` });
      const node = h("div", { class: "tl-am-cell tl-pm-cell", role: "option", tabindex: "-1", "aria-selected": "false", "aria-label": nameOf([l, k]), title: nameOf([l, k]) },
        canvas, plain[l] ? null : h("span", { class: "tl-pm-caption" }, map.name));
      node.tlMap = [l, k];
      return { node, canvas, at: [l, k] };
    }));
    const cellAt = ([line, k]) => cells.find((cell) => cell.at[0] === line && cell.at[1] === k);
    const corner = (text) => h("span", { class: "tl-am-axis", "aria-hidden": "true" }, text);
    if (plain.some(Boolean)) grid.append(corner(""), ...header.map((name) => corner(name)));
    maps.forEach((line, l) => grid.append(corner(lines[l]), ...header.map((_, k) => (k < line.length ? cellAt([l, k]).node : corner("")))));

    const weight = (map, patch) => TL.SQUARE[grey[map[0]][map[1]][patch]] * maps[map[0]][map[1]].most;

    // The picture, and the weights over it as colours.
    function paint(canvas, map, ratio) {
      const box = canvas.getBoundingClientRect();
      if (!grey || !box.width) return;
      canvas.width = Math.round(box.width * ratio);
      canvas.height = Math.round(box.height * ratio);
      const small = h("canvas", { width: columns, height: rows }), image = new ImageData(columns, rows);
      const out = new Uint32Array(image.data.buffer), bytes = grey[map[0]][map[1]];
      for (let i = 0; i < out.length; i++) out[i] = ramp[bytes[i]];
      small.getContext("2d").putImageData(image, 0, 0);
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = picture.width > canvas.width;
      context.drawImage(picture, 0, 0, canvas.width, canvas.height);
      context.globalAlpha = state.heat / 100;
      context.imageSmoothingEnabled = false;
      context.drawImage(small, 0, 0, canvas.width, canvas.height);
    }

    function paintAll() {
      ramp = TL.ramp(frame);
      cells.forEach((cell) => paint(cell.canvas, cell.at, Math.min(2, window.devicePixelRatio || 1)));
      stage.draw();
    }

    function choose(map, focus) {
      cells.forEach((cell) => { cell.node.setAttribute("aria-selected", "false"); cell.node.tabIndex = -1; });
      state.at = at = map;
      const { node } = cellAt(map), chosen = maps[map[0]][map[1]];
      node.setAttribute("aria-selected", "true");
      node.tabIndex = 0;
      if (focus) node.focus();
      title.textContent = nameOf(map);
      facts.replaceChildren(...Object.entries(chosen.facts).map(([name, fact]) => h("div", {}, h("dt", {}, name), h("dd", {}, TL.number(fact)))));
      legend.replaceChildren(h("span", {}, "0 ", h("i", { class: "tl-po-ramp", "aria-hidden": "true" }), ` ${TL.number(chosen.most)}${unit}; a quarter of it is in the middle`));
      stage.draw();
      tell();
    }

    function tell() {
      if (!last || !grey) { readout.textContent = hint; return; }
      const [r, c] = last, chosen = maps[at[0]][at[1]], known = weight(at, r * columns + c);
      readout.textContent = `Row ${r + 1}, column ${c + 1}: ${TL.number(Number(known.toPrecision(3)))}${unit}${chosen.most ? `, ${Math.round((100 * known) / chosen.most)} % of the largest` : ""}`;
    }

    function save() {
      if (!grey) return;
      const line = (r) => Array.from({ length: columns }, (_, c) => Number(weight(at, r * columns + c).toPrecision(4)));
      const name = nameOf(at).toLowerCase().replace(/[^a-z0-9]+/g, "-");
      TL.download(`${name}.csv`, TL.csv(["row", ...Array.from({ length: columns }, (_, c) => `column ${c + 1}`)], Array.from({ length: rows }, (_, r) => [r + 1, ...line(r)])), "text/csv");
    }

    grid.addEventListener("click", (event) => { const node = event.target.closest(".tl-pm-cell"); if (node) choose(node.tlMap, true); });
    grid.addEventListener("keydown", (event) => {
      const nodes = cells.map((cell) => cell.node);
      const to = TL.walk(event.key, nodes, nodes.indexOf(cellAt(at).node));
      if (to === undefined) return;
      event.preventDefault();
      if (to) choose(to.tlMap, true);
    });

    async function load() {
      const [image, bytes] = await Promise.all([TL.image(value.png), TL.greys(maps.flat().map((map) => map.png), columns, rows)]);
      if (!frame.isConnected) return;
      const queue = [...bytes];
      picture = image;
      grey = maps.map((line) => line.map(() => queue.shift()));
      TL.redraw(frame, paintAll);
      paintAll();
      tell();
      root.dataset.drawn = "yes";
    }

    choose(at);
    load().catch((error) => {
      console.error(error);
      body.append(h("p", { class: "tl-problem", role: "alert" }, "This view could not be drawn."));
    });
  };
})();
