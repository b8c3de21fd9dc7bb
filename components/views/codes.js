// A picture as codes: its token grid, its codebook as a map, and the codebook sorted by use. One choice, of a code and
// perhaps of one of its tokens, is shown in all three.
(() => {
  const { h } = TL;
  const REACH = 18; // px between the pointer and the dot that is meant
  const FEW = 10; // tokens counted per code, below which an unused code may be mere chance
  const HINT = "Point at a token, a dot or a bar. A click holds the choice; a second click or Escape lets it go. With the keyboard, arrow keys move in each of the three.";
  const MEANINGS = {
    perplexity: "exp(entropy) of how often the codes come up: so many codes, all used equally often, would be as hard to foresee. At most the size of the codebook, and at most the number of tokens counted.",
    dead: "Codes that never came up in the tokens counted. They cost bits and say nothing.",
    map: "The entries of the codebook in the plane of their two main directions (PCA), both axes to the same scale. What lies close together here may still differ in the directions that are left out.",
    "code alone": "What the decoder makes of a patch in which every token has this code.",
    "nearest training patches": "The patches of training photographs whose vectors, before they were rounded to a code, lie closest to this one.",
  };

  const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
  const times = (count) => (count === 1 ? "once" : `${TL.number(count)} times`);

  const perplexity = (counts, counted) => {
    let entropy = 0;
    for (const count of counts) if (count) entropy -= (count / counted) * Math.log(count / counted);
    return Math.exp(entropy);
  };

  const imageOf = (png) => {
    const image = new Image();
    image.src = `data:image/png;base64,${png}`;
    return image;
  };

  // A pen in CSS pixels on a canvas as sharp as the screen, emptied; null while it is not shown.
  const penOf = (canvas) => {
    const box = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
    if (!box.width) return null;
    canvas.width = Math.round(box.width * ratio);
    canvas.height = Math.round(box.height * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    return { pen, width: box.width, height: box.height };
  };

  const coloursOf = () => {
    const style = getComputedStyle(document.body);
    return Object.fromEntries(["ink", "ink-2", "line", "accent", "paper", "surface"].map((name) => [name, style.getPropertyValue(`--tl-${name}`).trim()]));
  };

  // Everything that follows from a level alone.
  const readLevel = (level) => {
    const order = level.counts.map((_, code) => code).sort((a, b) => level.counts[b] - level.counts[a] || a - b);
    const rank = new Array(level.size), places = new Map();
    order.forEach((code, i) => { rank[code] = i; });
    level.ids.forEach((code, token) => places.set(code, [...(places.get(code) || []), token]));
    const used = level.counts.filter((count) => count > 0).length;
    return { ...level, order, rank, places, used, most: Math.max(1, ...level.counts), perplexity: perplexity(level.counts, level.counted) };
  };

  TL.views.Codes = (root, value) => {
    const [rows, columns] = value.grid;
    const levels = value.levels.map(readLevel);
    const picture = imageOf(value.png), sheet = value.sheet ? imageOf(value.sheet) : null;
    let level = levels[0];
    let code = null, token = null, held = false;
    let fromPicture = true; // chosen in the picture: then the other tokens are not dimmed
    let dots = []; // code -> [left, top, radius] on the map

    // ---- what stands on the page

    const menu = h("select", { onchange: () => turn(levels[Number(menu.value)]) }, levels.map((one, i) => h("option", { value: i }, one.name)));
    const lines = TL.toggle("Grid lines", true, () => paintPicture());
    const table = h("div", { hidden: true });
    const asTable = TL.toggle("As a table", false, (on) => { table.hidden = !on; fillTable(); });
    const csv = TL.button("CSV", () => TL.csvButton(value, ...tabled()).click(), { title: "Download every code with its use as CSV" });
    const badges = h("p", { class: "tl-cb-badges" });
    const few = h("p", { class: "tl-note" });
    const stage = (name, label, ...children) => h("div", { class: `tl-cb-stage ${name}`, tabindex: "0", role: "application", "aria-roledescription": "picture", "aria-label": label }, ...children);
    const canvas = () => h("canvas", { "aria-hidden": "true" });
    const over = canvas(), map = canvas(), ring = canvas(), histogram = canvas(), pin = canvas();
    const tokens = stage("tokens", `${value.alt} Arrow keys move from token to token.`, picture, over);
    tokens.style.aspectRatio = `${columns} / ${rows}`;
    const plane = stage("map", "The codebook as a map. Arrow keys move to the closest code in that direction.", map, ring);
    const bars = stage("use", "The codes sorted by use. Arrow keys move to the next more or less used code.", histogram, pin);
    const axis = h("div", { class: "tl-cb-y", "aria-hidden": "true" });
    const below = h("p", { class: "tl-rt-axes", "aria-hidden": "true" });
    const details = h("div", { class: "tl-details tl-cb-details", "aria-live": "polite" });
    picture.alt = "";

    TL.frame(root, value, levels.length > 1 ? h("label", { class: "tl-rt-choose" }, "Level ", menu) : null, lines, asTable, csv).append(
      badges, few,
      h("div", { class: "tl-cb" },
        h("figure", {}, h("figcaption", {}, `The picture: ${rows} × ${columns} tokens`), tokens),
        h("figure", {}, h("figcaption", {}, "The codebook as a map"), plane, legend())),
      h("figure", { class: "tl-cb-use" }, h("figcaption", {}, "Use of every code, the most used first (log scale)"), h("div", { class: "tl-cb-axes" }, axis, h("div", {}, bars, below))),
      details, table, definitions());

    function legend() {
      const sign = (name, text) => h("span", {}, h("i", { class: `tl-cb-sign ${name}`, "aria-hidden": "true" }), ` ${text}`);
      return h("p", { class: "tl-legend" }, sign("here", "used in this picture"), sign("used", "used elsewhere (the larger, the more often)"), sign("dead", "dead: never came up"));
    }

    function definitions() {
      return h("details", { class: "tl-definitions" }, h("summary", {}, "What this shows"), h("dl", {}, Object.entries(MEANINGS).map(([name, text]) => [h("dt", {}, name), h("dd", {}, text)])));
    }

    function tabled() {
      const names = ["code", `times in ${TL.number(level.counted)} tokens`, "tokens of this picture", "map x", "map y"];
      return [names, level.order.map((id) => [id, level.counts[id], (level.places.get(id) || []).length, level.x[id], level.y[id]])];
    }

    function fillTable() {
      if (!table.hidden) table.replaceChildren(TL.tableOf(...tabled(), { label: `${level.name}: its codes, the most used first` }));
    }

    function turn(to) {
      level = to;
      const dead = level.size - level.used;
      const facts = Object.entries(level.facts).map(([name, fact]) => [TL.number(fact), name]);
      const shown = [
        [TL.number(Number(level.perplexity.toPrecision(3))), `perplexity, of ${TL.number(level.counted)} tokens counted`], [TL.number(dead), `dead of ${TL.number(level.size)} codes`],
        [percent(level.used / level.size), "of the codebook used"], [TL.number(level.places.size), "codes in this picture"], ...facts,
      ];
      badges.replaceChildren(...shown.map(([number, text]) => h("span", { class: "tl-cb-badge" }, h("b", {}, number), ` ${text}`)));
      few.hidden = level.counted >= FEW * level.size;
      few.textContent = few.hidden ? "" : `Only ${TL.number(level.counted / level.size)} tokens were counted per code: a code may look dead by chance.`;
      code = token === null ? null : level.ids[token];
      fillTable();
      paint();
      tell();
    }

    // ---- painting

    const cellOf = (one, width, height) => [((one % columns) * width) / columns, (Math.floor(one / columns) * height) / rows, width / columns, height / rows];

    // The same in whole pixels, for crisp lines.
    const boxOf = (one, width, height) => {
      const [left, top, wide, high] = cellOf(one, width, height), x = Math.round(left), y = Math.round(top);
      return [x, y, Math.round(left + wide) - x, Math.round(top + high) - y];
    };

    function paintPicture() {
      const at = penOf(over);
      if (!at) return;
      const { pen, width, height } = at, same = code === null ? [] : level.places.get(code) || [];
      if (lines.getAttribute("aria-pressed") === "true" && width / columns >= 5) {
        for (const [colour, shift] of [["rgb(255 255 255 / 0.28)", 0], ["rgb(0 0 0 / 0.28)", 1]]) {
          pen.fillStyle = colour;
          for (let c = 1; c < columns; c++) pen.fillRect((c * width) / columns + shift - 1, 0, 1, height);
          for (let r = 1; r < rows; r++) pen.fillRect(0, (r * height) / rows + shift - 1, width, 1);
        }
      }
      if (code !== null && !fromPicture) {
        pen.fillStyle = "rgb(0 0 0 / 0.6)";
        pen.fillRect(0, 0, width, height);
        for (const one of same) pen.clearRect(...boxOf(one, width, height));
      }
      for (const one of same) outline(pen, boxOf(one, width, height), one === token);
    }

    // Dark and light, so that it stands out from any picture. [colour, how far in its middle lies, its width]
    function outline(pen, [left, top, width, height], chosen) {
      const strokes = chosen ? [["#000", -0.5, 1], ["#fff", 1, 2], ["#000", 2.5, 1]] : [["#000", 0.5, 1], ["#fff", 1.5, 1]];
      for (const [colour, inset, wide] of strokes) {
        pen.strokeStyle = colour;
        pen.lineWidth = wide;
        pen.strokeRect(left + inset, top + inset, width - 2 * inset, height - 2 * inset);
      }
    }

    function paintMap() {
      const at = penOf(map);
      if (!at) return;
      const { pen, width, height } = at, colours = coloursOf(), margin = 14;
      const ends = (values) => [Math.min(...values), Math.max(...values)];
      const [left, right] = ends(level.x), [low, high] = ends(level.y);
      const scale = Math.min((width - 2 * margin) / (right - left || 1), (height - 2 * margin) / (high - low || 1));
      const largest = 7 * Math.min(1, Math.sqrt(1024 / level.size));
      dots = level.x.map((x, id) => [
        width / 2 + scale * (x - (left + right) / 2), height / 2 - scale * (level.y[id] - (low + high) / 2), 1.5 + largest * Math.sqrt(level.counts[id] / level.most),
      ]);
      const isHere = (id) => level.places.has(id);
      const codes = [...level.order].reverse(); // small dots lie on large ones only within a group
      for (const here of [false, true]) {
        for (const id of codes) {
          if (isHere(id) !== here) continue;
          const [x, y, r] = dots[id];
          pen.fillStyle = pen.strokeStyle = here ? colours.accent : colours["ink-2"];
          if (level.counts[id] === 0) {
            pen.lineWidth = 1.2;
            pen.beginPath();
            pen.moveTo(x - 2.5, y - 2.5); pen.lineTo(x + 2.5, y + 2.5); pen.moveTo(x - 2.5, y + 2.5); pen.lineTo(x + 2.5, y - 2.5);
            pen.stroke();
            continue;
          }
          pen.beginPath();
          pen.arc(x, y, r, 0, 2 * Math.PI);
          pen.globalAlpha = here ? 0.85 : 0.35;
          pen.fill();
          pen.globalAlpha = 1;
          if (here) { pen.lineWidth = 1; pen.strokeStyle = colours.ink; pen.stroke(); }
        }
      }
    }

    function paintRing() {
      const at = penOf(ring);
      if (!at || code === null || !dots[code]) return;
      const { pen, width, height } = at, colours = coloursOf(), [x, y, r] = dots[code];
      pen.strokeStyle = colours.line;
      pen.beginPath();
      pen.moveTo(x, 0); pen.lineTo(x, height); pen.moveTo(0, y); pen.lineTo(width, y);
      pen.stroke();
      for (const [colour, thick] of [[colours.surface, 6], [colours.ink, 3]]) {
        pen.strokeStyle = colour;
        pen.lineWidth = thick;
        pen.beginPath();
        pen.arc(x, y, r + 4, 0, 2 * Math.PI);
        pen.stroke();
      }
    }

    // Half a token is the foot of the scale, so that a code that came up once still has a bar.
    const heightOf = (count, height) => (count === 0 ? 0 : (height * Math.log(2 * count)) / Math.log(2 * level.most));

    function paintBars() {
      const at = penOf(histogram);
      if (!at) return;
      const { pen, width, height } = at, colours = coloursOf(), floor = height - 8;
      const wide = width / level.size, bar = Math.max(wide - (wide > 4 ? 1 : 0), 0.5);
      const ticks = [];
      for (let tick = 1; tick <= level.most; tick *= 10) ticks.push(tick);
      pen.fillStyle = colours.line;
      for (const tick of ticks) pen.fillRect(0, floor - heightOf(tick, floor), width, 1);
      pen.fillRect(0, floor, width, 1);
      for (const here of [false, true]) {
        pen.fillStyle = here ? colours.accent : colours["ink-2"];
        level.order.forEach((id, i) => {
          if (level.places.has(id) !== here) return;
          const tall = heightOf(level.counts[id], floor);
          pen.globalAlpha = here ? 1 : 0.45;
          pen.fillRect(i * wide, floor - tall, bar, tall);
          if (here) pen.fillRect(i * wide, floor + 3, Math.max(bar, 1), 5); // not by colour alone
        });
      }
      pen.globalAlpha = 1;
      axis.replaceChildren(...ticks.map((tick) => h("span", { style: `top:${floor - heightOf(tick, floor)}px` }, TL.number(tick))));
      const dead = level.size - level.used;
      below.replaceChildren(h("span", {}, "most used"), h("span", {}, dead ? `${TL.number(dead)} dead at the end →` : "none dead"));
    }

    function paintPin() {
      const at = penOf(pin);
      if (!at || code === null) return;
      const { pen, width, height } = at, colours = coloursOf(), x = ((level.rank[code] + 0.5) * width) / level.size;
      pen.fillStyle = colours.surface;
      pen.fillRect(x - 2.5, 0, 5, height);
      pen.fillStyle = colours.ink;
      pen.fillRect(x - 1, 0, 2, height);
    }

    function paint() {
      paintMap();
      paintBars();
      mark();
    }

    function mark() {
      paintPicture();
      paintRing();
      paintPin();
    }

    // ---- choosing

    // id: a code; one: the token that was chosen with it, null when the code was chosen in the codebook.
    function choose(id, one) {
      if (id === code && one === token) return;
      code = id;
      fromPicture = one !== null;
      token = one;
      root.dataset.code = String(code);
      mark();
      tell();
    }

    function tell() {
      if (code === null) { details.replaceChildren(h("p", { class: "tl-hint" }, HINT)); return; }
      const count = level.counts[code], here = level.places.get(code) || [];
      const facts = [
        count ? `came up ${times(count)} in ${TL.number(level.counted)} tokens, rank ${TL.number(level.rank[code] + 1)} of ${TL.number(level.size)}` : `dead: never came up in ${TL.number(level.counted)} tokens`,
        here.length ? `${TL.number(here.length)} of the ${TL.number(rows * columns)} tokens of this picture` : "not in this picture",
        held ? "held" : "",
      ];
      const where = token === null ? "" : ` at row ${Math.floor(token / columns) + 1}, column ${(token % columns) + 1}`;
      details.replaceChildren(
        h("p", {}, h("b", {}, `${levels.length > 1 ? `${level.name}, code` : "Code"} ${code}`), where, h("span", { class: "tl-facts" }, facts.filter(Boolean).join(" · "))),
        h("div", { class: "tl-cb-tiles" }, tiles(here)));
    }

    function tiles(here) {
      const shown = [];
      const one = token === null ? here[0] : token;
      if (one !== undefined) shown.push(tileOf("in the picture", [pieceOf(one)]));
      if (sheet && level.decoded[code] >= 0) shown.push(tileOf("code alone", [sheetTile(level.decoded[code])]));
      const near = sheet ? level.nearest[code] || [] : [];
      if (near.length) shown.push(tileOf("nearest training patches", near.map(sheetTile)));
      return shown;
    }

    const tileOf = (name, children) => h("figure", {}, h("figcaption", {}, name), h("div", {}, children));

    const cut = (image, left, top, width, height) => {
      const tile = h("canvas", { width: Math.max(1, Math.round(width)), height: Math.max(1, Math.round(height)), "aria-hidden": "true" });
      if (image.complete && image.naturalWidth) tile.getContext("2d").drawImage(image, left, top, width, height, 0, 0, tile.width, tile.height);
      return tile;
    };
    const pieceOf = (one) => cut(picture, ...cellOf(one, picture.naturalWidth, picture.naturalHeight));
    const sheetTile = (i) => cut(sheet, (i % value.across) * value.tile, Math.floor(i / value.across) * value.tile, value.tile, value.tile);

    // What a pointer means in each of the three: [code, token], or null.
    const inside = (share, count) => Math.max(0, Math.min(count - 1, Math.floor(share * count)));
    const pointed = (node, event) => {
      const box = node.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top, box.width, box.height];
    };
    const tokenAt = (event) => {
      const [x, y, width, height] = pointed(over, event);
      const one = inside(y / height, rows) * columns + inside(x / width, columns);
      return [level.ids[one], one];
    };
    const dotAt = (event) => {
      const [x, y] = pointed(map, event);
      let best = null, least = REACH;
      dots.forEach(([left, top, r], id) => {
        const distance = Math.max(0, Math.hypot(left - x, top - y) - r);
        if (distance < least || (distance === least && best !== null && r < dots[best][2])) { least = distance; best = id; }
      });
      return best === null ? null : [best, null];
    };
    const barAt = (event) => {
      const [x, , width] = pointed(histogram, event);
      return [level.order[inside(x / width, level.size)], null];
    };

    function stepOver(key) {
      const from = token === null ? (level.places.get(code) || [0])[0] : token, r = Math.floor(from / columns), c = from % columns;
      const to = { ArrowUp: [r - 1, c], ArrowDown: [r + 1, c], ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1], Home: [r, 0], End: [r, columns - 1], PageUp: [0, c], PageDown: [rows - 1, c] }[key];
      if (!to) return null;
      const one = Math.max(0, Math.min(rows - 1, to[0])) * columns + Math.max(0, Math.min(columns - 1, to[1]));
      return [level.ids[one], one];
    }

    function stepAcross(key) {
      const way = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[key];
      if (!way) return null;
      let best = code, least = Infinity;
      dots.forEach(([x, y], id) => {
        const right = x - dots[code][0], down = y - dots[code][1];
        const ahead = right * way[0] + down * way[1], aside = Math.abs(right * way[1]) + Math.abs(down * way[0]);
        if (ahead > 0 && aside <= ahead && Math.hypot(ahead, aside) < least) { least = Math.hypot(ahead, aside); best = id; }
      });
      return [best, null];
    }

    function stepInRank(key) {
      const from = level.rank[code], to = { ArrowLeft: from - 1, ArrowUp: from - 1, ArrowRight: from + 1, ArrowDown: from + 1, Home: 0, End: level.size - 1, PageUp: from - 32, PageDown: from + 32 }[key];
      return to === undefined ? null : [level.order[Math.max(0, Math.min(level.size - 1, to))], null];
    }

    for (const [node, at, step] of [[tokens, tokenAt, stepOver], [plane, dotAt, stepAcross], [bars, barAt, stepInRank]]) {
      node.addEventListener("pointermove", (event) => { const found = held ? null : at(event); if (found) choose(...found); });
      node.addEventListener("click", (event) => {
        const found = at(event);
        if (!found) return;
        held = !(held && found[0] === code && found[1] === token);
        choose(...found);
        tell();
      });
      node.addEventListener("focus", () => { if (code === null) choose(level.ids[0], 0); });
      node.addEventListener("keydown", (event) => {
        if (event.key === "Escape" && held) { held = false; tell(); return; }
        const found = step(event.key);
        if (!found) return;
        event.preventDefault();
        choose(...found);
      });
    }

    turn(level);
    TL.redraw(over, paintPicture);
    TL.redraw(map, () => { paintMap(); paintRing(); });
    TL.redraw(histogram, () => { paintBars(); paintPin(); });
    Promise.all([picture, sheet].filter(Boolean).map((image) => image.decode())).then(() => {
      tell();
      root.dataset.drawn = "1";
    }).catch((error) => {
      console.error(error);
      details.replaceChildren(h("p", { class: "tl-problem", role: "alert" }, "This view could not be drawn."));
    });
  };
})();
