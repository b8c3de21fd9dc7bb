// One picture under several methods: what is removed is dimmed and hatched, what is merged has one colour, at any layer.
(() => {
  const { h } = TL;
  // Okabe and Ito's palette, which people with any kind of colour vision tell apart, on light and on dark.
  const COLOURS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"];
  const SIGNS = { right: "✓", wrong: "✗" };
  const plural = (count, word) => `${TL.number(count)} ${word}${count === 1 ? "" : "s"}`;

  // patch -> the patches beside it, above and below; null beyond the edge. Order: above, right, below, left.
  const beside = (patch, rows, columns) => {
    const r = Math.floor(patch / columns), c = patch % columns;
    return [r > 0 ? patch - columns : null, c < columns - 1 ? patch + 1 : null, r < rows - 1 ? patch + columns : null, c > 0 ? patch - 1 : null];
  };

  // The groups of more than one patch: number -> its patches.
  const groupsOf = (row) => {
    const groups = new Map();
    row.groups.forEach((group, patch) => { if (group >= 0) groups.set(group, [...(groups.get(group) || []), patch]); });
    for (const [group, patches] of groups) if (patches.length < 2) groups.delete(group);
    return groups;
  };

  // A colour for each group such that neighbours differ as far as the palette goes.
  const coloursOf = (row, groups, rows, columns) => {
    const chosen = new Map();
    for (const [group, patches] of groups) {
      const taken = new Set(patches.flatMap((patch) => beside(patch, rows, columns)).map((other) => chosen.get(row.groups[other])));
      chosen.set(group, COLOURS.find((colour) => !taken.has(colour)) || COLOURS[chosen.size % COLOURS.length]);
    }
    return chosen;
  };

  TL.views.PatchOverlay = (root, value) => {
    const [rows, columns] = value.grid, N = rows * columns;
    const marked = new Set(value.marked);
    const layered = value.rows.some((row) => row.left.some((layer) => layer > 0));
    const scored = value.rows.some((row) => row.scores.some((score) => score !== null));
    const merges = value.rows.map(groupsOf), tints = value.rows.map((row, i) => coloursOf(row, merges[i], rows, columns));
    // What was chosen stays when a run goes on and the view is drawn again.
    const state = (root.tlPatches = root.tlPatches || { layer: Infinity, patch: null, scores: false });
    let picture = null;

    const gone = (row, patch) => row.left[patch] >= 0 && row.left[patch] <= layer();
    const layer = () => Math.min(state.layer, value.layers - 1);

    // ---- what stands on the page

    const tools = scored ? [TL.toggle("Show scores", state.scores, (on) => { state.scores = on; show(); })] : [];
    const body = TL.frame(root, value, ...tools);
    const slider = h("input", { type: "range", min: "0", max: String(value.layers - 1), value: String(layer()), "aria-label": "Layer of the language model", oninput: () => { state.layer = Number(slider.value); show(); } });
    const label = h("output", { class: "tl-step" });
    const counts = value.rows.map(() => h("p", { class: "tl-po-count" }));
    const stages = value.rows.map((row, i) => TL.cells({
      rows, columns, label: `${row.name}: the picture's patches.`,
      paint: (canvas) => paint(canvas, row, merges[i], tints[i]),
      say: (r, c) => read(r * columns + c),
    }));
    stages.forEach(({ node }, i) => { node.classList.add("tl-po-stage"); if (i) node.tabIndex = -1; }); // the first one speaks for all
    const details = h("div", { class: "tl-details", "aria-live": "polite" });
    const legend = h("p", { class: "tl-legend" });
    body.append(
      layered ? h("div", { class: "tl-slider" }, slider, label) : "",
      h("div", { class: "tl-po-cards" }, value.rows.map((row, i) => h("figure", { class: "tl-po-card" },
        h("figcaption", {}, h("b", {}, row.name), badge(row.mark)), stages[i].node, counts[i], facts(row.facts)))),
      legend, details);

    function badge(mark) {
      return mark ? h("span", { class: `tl-po-mark ${mark in SIGNS ? mark : ""}` }, SIGNS[mark] ? h("i", { "aria-hidden": "true" }, `${SIGNS[mark]} `) : null, mark) : null;
    }

    function facts(known) {
      const entries = Object.entries(known);
      return entries.length ? h("dl", { class: "tl-po-facts" }, entries.map(([name, fact]) => h("div", {}, h("dt", {}, name), h("dd", {}, TL.number(fact))))) : null;
    }

    function explain() {
      const sample = (kind, text, style) => h("span", {}, h("i", { class: `tl-po-sample ${kind}`, style, "aria-hidden": "true" }), ` ${text}`);
      const all = value.rows.flatMap((row) => row.left);
      legend.replaceChildren(...[
        state.scores ? h("span", {}, "lowest score ", h("i", { class: "tl-po-ramp", "aria-hidden": "true" }), " highest, of each method") : null,
        state.scores ? sample("edge", "around what is kept") : null,
        all.some((left) => left >= 0) ? sample("gone", state.scores ? "removed, without a score" : "removed") : null,
        merges.some((groups) => groups.size) ? sample("merged", "one colour: merged into one token", `--tl-po-tint:${COLOURS[0]}`) : null,
        marked.size && value.marked_name ? sample("marked", value.marked_name) : null,
      ].filter(Boolean));
    }

    // ---- the picture and what lies over it

    function paint(canvas, row, groups, tint) {
      const box = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
      if (!box.width || !picture) return;
      canvas.width = Math.round(box.width * ratio);
      canvas.height = Math.round(box.height * ratio);
      const context = canvas.getContext("2d"), style = getComputedStyle(canvas), colour = (name) => style.getPropertyValue(name).trim();
      const wide = canvas.width / columns, high = canvas.height / rows, line = Math.max(1, ratio);
      const rect = (patch) => [(patch % columns) * wide, Math.floor(patch / columns) * high, wide, high];
      const over = (patches, draw) => {
        context.save();
        context.beginPath();
        patches.forEach((patch) => context.rect(...rect(patch)));
        context.clip();
        draw();
        context.restore();
      };
      // The sides of patches for which differs(patch, neighbour) holds; inset: how far inside the patch.
      const sides = (patches, differs, inset) => {
        context.beginPath();
        for (const patch of patches) {
          const [x, y] = rect(patch), [l, t, r, b] = [x + inset, y + inset, x + wide - inset, y + high - inset];
          const lines = [[l, t, r, t], [r, t, r, b], [l, b, r, b], [l, t, l, b]];
          beside(patch, rows, columns).forEach((other, side) => {
            if (!differs(patch, other)) return;
            const [x1, y1, x2, y2] = lines[side];
            context.moveTo(x1, y1);
            context.lineTo(x2, y2);
          });
        }
        context.stroke();
      };
      context.imageSmoothingEnabled = picture.width > canvas.width;
      context.drawImage(picture, 0, 0, canvas.width, canvas.height);
      const every = [...Array(N).keys()], removed = every.filter((patch) => gone(row, patch));
      const shaded = state.scores && row.scores.some((score) => score !== null);
      const hatched = shaded ? removed.filter((patch) => row.scores[patch] === null) : removed;
      over(hatched, () => {
        context.globalAlpha = 0.8;
        context.fillStyle = colour("--tl-paper");
        context.fillRect(0, 0, canvas.width, canvas.height);
        context.globalAlpha = 0.55;
        context.strokeStyle = colour("--tl-ink-2");
        context.lineWidth = line;
        context.beginPath();
        for (let x = -canvas.height; x < canvas.width; x += 5 * line) {
          context.moveTo(x, canvas.height);
          context.lineTo(x + canvas.height, 0);
        }
        context.stroke();
      });
      if (shaded) {
        const known = row.scores.filter((score) => score !== null), low = Math.min(...known), span = Math.max(...known) - low || 1;
        const ramp = new Uint8ClampedArray(TL.ramp(canvas).buffer);
        every.filter((patch) => row.scores[patch] !== null).forEach((patch) => {
          const p = 4 * Math.round((255 * (row.scores[patch] - low)) / span);
          context.fillStyle = `rgb(${ramp[p]} ${ramp[p + 1]} ${ramp[p + 2]} / 0.85)`;
          context.fillRect(...rect(patch));
        });
        context.strokeStyle = colour("--tl-warn");
        context.lineWidth = 2 * line;
        sides(every.filter((patch) => !gone(row, patch)), (_, other) => other !== null && gone(row, other), line);
      } else {
        for (const [group, patches] of groups) {
          const here = patches.filter((patch) => !gone(row, patch));
          over(here, () => {
            context.globalAlpha = 0.3;
            context.fillStyle = tint.get(group);
            context.fillRect(0, 0, canvas.width, canvas.height);
          });
          context.strokeStyle = tint.get(group);
          context.lineWidth = 2.5 * line;
          sides(here, (_, other) => row.groups[other] !== group, 1.25 * line);
        }
      }
      // Black with white dashes is seen on any picture.
      for (const [stroke, width, dash] of [["#000000", 3, []], ["#ffffff", 1.5, [4 * line, 3 * line]]]) {
        context.strokeStyle = stroke;
        context.lineWidth = width * line;
        context.setLineDash(dash);
        sides(marked, (_, other) => !marked.has(other), 1.5 * line);
      }
    }

    // ---- reading

    function show() {
      label.textContent = `before layer ${layer()} of 0 to ${value.layers - 1}`;
      slider.setAttribute("aria-valuetext", `before layer ${layer()}`);
      value.rows.forEach((row, i) => {
        const kept = row.left.reduce((count, _, patch) => count + !gone(row, patch), 0);
        const groups = [...merges[i].values()].map((patches) => patches.filter((patch) => !gone(row, patch)).length).filter(Boolean);
        const tokens = kept - groups.reduce((sum, size) => sum + size - 1, 0);
        counts[i].textContent = `${TL.number(kept)} of ${TL.number(N)} patches${tokens < kept ? ` as ${plural(tokens, "token")}` : ""}`;
        stages[i].draw();
      });
      explain();
      if (state.patch !== null && state.patch < N) read(state.patch);
    }

    function fate(row, groups, patch) {
      const left = row.left[patch], group = row.groups[patch], parts = [];
      if (left === 0) parts.push("removed before the language model");
      else if (left < 0) parts.push("kept");
      else parts.push(`${left <= layer() ? "removed" : "still there, removed"} before layer ${left}`);
      if (left !== 0 && groups.has(group)) parts.push(`merged with ${plural(groups.get(group).length - 1, "other")} into token ${group}`);
      const score = row.scores[patch];
      if (score !== null && score !== undefined) {
        const known = row.scores.filter((other) => other !== null), rank = 1 + known.filter((other) => other > score).length;
        parts.push(`score ${[TL.number(score), row.unit].filter(Boolean).join(" ")}, rank ${rank} of ${known.length}`);
      }
      return parts.join(" · ");
    }

    function read(patch) {
      state.patch = patch;
      const r = Math.floor(patch / columns), c = patch % columns;
      stages.forEach((stage) => stage.point(r, c));
      details.replaceChildren(
        h("p", {}, h("b", {}, `Row ${r + 1}, column ${c + 1}`), marked.has(patch) && value.marked_name ? h("span", { class: "tl-facts" }, value.marked_name) : null),
        h("ul", { class: "tl-po-said" }, value.rows.map((row, i) => h("li", {}, h("b", {}, row.name), ` ${fate(row, merges[i], patch)}`))));
    }

    details.append(h("p", { class: "tl-hint" }, "Point at a patch, or move with the arrow keys, to read what each method does to it."));
    show();
    TL.image(value.png).then((image) => {
      picture = image;
      stages.forEach((stage) => stage.draw());
      root.dataset.drawn = "yes";
    }).catch((error) => {
      console.error(error);
      body.append(h("p", { class: "tl-problem", role: "alert" }, "This picture could not be drawn."));
    });
  };
})();
