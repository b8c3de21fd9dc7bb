// What stays in the cache under each policy: a strip of tokens at any step, and a token x step map of the whole run.
TL.views.Retention = (root, value) => {
  const { h } = TL;
  const { rows, prompt, steps } = value;
  const longest = Math.max(...rows.map((row) => row.tokens.length));
  const arrival = (token) => Math.max(0, token - prompt + 1);
  const percent = (share) => `${TL.number(Math.round(1000 * share) / 10)} %`;
  let at = steps, layer = -1, head = -1, current = null, timer = null;
  let held = []; // per policy: the share of the chosen heads that hold a token, at [step * tokens + token]

  const option = (text, index) => h("option", { value: index }, text);
  const layers = h("select", { onchange: () => { layer = Number(layers.value); if (layer < 0) head = -1; heads.value = String(head); heads.disabled = layer < 0; choose(); } },
    option("all layers", -1), rows[0].left.map((_, i) => option(`layer ${i}`, i)));
  const heads = h("select", { disabled: true, onchange: () => { head = Number(heads.value); choose(); } }, option("all heads", -1), rows[0].left[0].map((_, i) => option(`head ${i}`, i)));
  const play = TL.button("Play", () => (timer ? stop() : start()), { disabled: steps === 0 });
  const slider = h("input", { type: "range", min: "0", max: String(steps), value: String(at), "aria-label": "Step", oninput: () => { stop(); go(Number(slider.value)); } });
  const label = h("output", { class: "tl-step" });
  const grid = h("div", { class: "tl-rt-grid", role: "grid", "aria-label": value.alt });
  const maps = h("div", { class: "tl-rt-maps" });
  const details = h("div", { class: "tl-details", "aria-live": "polite" });

  TL.frame(root, value, h("label", { class: "tl-rt-choose" }, "Show ", layers), h("label", { class: "tl-rt-choose" }, "and ", heads), play).append(
    h("div", { class: "tl-slider" }, slider, label), grid, legend(),
    h("h4", { class: "tl-rt-title" }, "The whole run: every token, every step"), maps, details);

  function legend() {
    const sample = (shade, text) => h("span", {}, h("i", { class: `tl-rt-token${shade ? "" : " gone"}`, style: `--tl-shade:${shade}`, "aria-hidden": "true" }, "token"), ` ${text}`);
    return h("p", { class: "tl-legend" }, sample(1, "held by all"), sample(0.4, "held by some"), sample(0, "gone everywhere"), h("span", {}, h("i", { class: "tl-rt-border", "aria-hidden": "true" }), " here the prompt ends"));
  }

  // The strips: one per policy, of the same tokens as far as the outputs agree.
  const counts = rows.map(() => h("small", {}));
  const cells = rows.map((row, r) => row.tokens.map((text, token) => {
    const mark = row.marks[token] ? h("small", { class: "tl-rt-mark" }, row.marks[token]) : null;
    const node = h("span", { class: "tl-rt-token", role: "gridcell", tabindex: "-1" }, TL.visibleInTable(text) || "\u00a0", mark);
    node.tlAt = [r, token];
    return node;
  }));
  grid.append(...rows.map((row, r) => h("div", { class: "tl-rt-row", role: "row" },
    h("span", { class: "tl-rt-name", role: "rowheader" }, h("b", {}, row.name), " ", counts[r]),
    h("span", { class: "tl-rt-strip", role: "presentation" }, cells[r].slice(0, prompt), h("i", { class: "tl-rt-border", "aria-hidden": "true" }), cells[r].slice(prompt)))));
  cells[0][0].tabIndex = 0;

  // The maps: one small picture per policy, all on the same axes.
  const lines = [];
  const pictures = rows.map((row, r) => {
    const picture = TL.cells({
      rows: steps + 1, columns: longest, height: Math.max(28, Math.min(160, 5 * (steps + 1))), label: `${row.name}: tokens from left to right, steps from top to bottom.`,
      shade: (step, token) => (token < row.tokens.length && step >= arrival(token) ? held[r][step * row.tokens.length + token] : null),
      say: (step, token) => (token < row.tokens.length ? select(r, token, step) : null),
    });
    const line = h("i", { class: "tl-rt-now" });
    lines.push(line);
    picture.node.append(h("i", { class: "tl-rt-edge", style: `left:${(100 * prompt) / longest}%` }), line);
    picture.node.addEventListener("click", (event) => { const box = picture.node.getBoundingClientRect(); stop(); go(Math.floor(((event.clientY - box.top) / box.height) * (steps + 1))); });
    maps.append(h("figure", {}, h("figcaption", {}, row.name), picture.node, h("p", { class: "tl-rt-axes", "aria-hidden": "true" }, h("span", {}, `token 1 to ${longest} →`), h("span", {}, steps ? `step 0 to ${steps} ↓` : "step 0"))));
    return picture;
  });

  function choose() {
    held = rows.map((row) => {
      const pairs = row.left.filter((_, l) => layer < 0 || l === layer).flatMap((line) => (head < 0 ? line : [line[head]]));
      const tokens = row.tokens.length, share = new Float32Array((steps + 1) * tokens);
      for (const pair of pairs) {
        for (let token = 0; token < tokens; token++) {
          const end = pair[token] < 0 ? steps + 1 : pair[token];
          for (let step = arrival(token); step < end; step++) share[step * tokens + token] += 1;
        }
      }
      return share.map((count) => count / pairs.length);
    });
    pictures.forEach((picture) => picture.draw());
    go(at);
  }

  function go(step) {
    at = Math.max(0, Math.min(steps, step));
    rows.forEach((row, r) => {
      let sum = 0, seen = 0;
      row.tokens.forEach((_, token) => {
        const node = cells[r][token], here = at >= arrival(token), share = held[r][at * row.tokens.length + token];
        node.classList.toggle("later", !here);
        node.classList.toggle("gone", here && share === 0);
        node.style.setProperty("--tl-shade", share.toFixed(3));
        if (here) { sum += share; seen++; }
      });
      counts[r].textContent = `holds ${TL.number(Math.round(10 * sum) / 10)} of ${seen} tokens`;
      lines[r].style.top = `${(100 * (at + 0.5)) / (steps + 1)}%`;
    });
    slider.value = String(at);
    label.textContent = at ? `${at} of ${steps} tokens after the prompt` : "the prompt was read, and the cache cut";
    slider.setAttribute("aria-valuetext", label.textContent);
    root.dataset.step = String(at);
    if (current) select(...current, at);
  }

  // Read a token: who holds it, and until when.
  function select(r, token, step) {
    grid.querySelectorAll(".on").forEach((node) => node.classList.remove("on"));
    current = [r, token];
    const row = rows[r], tokens = row.tokens.length;
    const share = held[r][step * tokens + token], here = step >= arrival(token);
    cells[r][token].classList.add("on");
    let end = steps;
    while (end >= 0 && held[r][end * tokens + token] === 0) end--;
    const fate = end < arrival(token) ? "gone as soon as it was read" : end === steps ? "still held somewhere at the end" : `gone everywhere from step ${end + 1} on`;
    const others = token < prompt ? rows.map((other, o) => (o === r ? null : h("li", {}, h("b", {}, other.name), ` ${percent(held[o][step * other.tokens.length + token])}`))) : [];
    details.replaceChildren(
      h("p", {}, h("b", {}, row.name), ` token ${token + 1} of ${tokens} `, h("code", {}, TL.visible(row.tokens[token]) || "(empty)"),
        h("span", { class: "tl-facts" }, [row.marks[token], token < prompt ? "prompt" : "after the prompt", here ? `step ${step}: held by ${percent(share)} of ${scope()}` : `step ${step}: not read yet`, fate].filter(Boolean).join(" · "))),
      others.length ? h("ul", {}, others) : "");
  }

  const scope = () => (layer < 0 ? "all heads" : head < 0 ? `the heads of layer ${layer}` : `layer ${layer}, head ${head}`);

  const read = (event) => { const node = event.target.closest(".tl-rt-token"); if (node && node.tlAt) select(...node.tlAt, at); };
  grid.addEventListener("pointerover", read);
  grid.addEventListener("focusin", read);
  grid.addEventListener("keydown", (event) => {
    const from = event.target.tlAt;
    if (!from) return;
    const [r, token] = from, end = rows.map((row) => Math.min(row.tokens.length, prompt + at) - 1);
    const target = { ArrowRight: [r, token + 1], ArrowLeft: [r, token - 1], ArrowDown: [r + 1, token], ArrowUp: [r - 1, token], Home: [r, 0], End: [r, end[r]] }[event.key];
    if (!target) return;
    event.preventDefault();
    if (!rows[target[0]] || target[1] < 0) return;
    const next = cells[target[0]][Math.min(target[1], end[target[0]])];
    grid.querySelectorAll('[tabindex="0"]').forEach((node) => { node.tabIndex = -1; });
    next.tabIndex = 0;
    next.focus();
  });

  function start() {
    if (at === steps) go(0);
    play.textContent = "Pause";
    timer = setInterval(() => { if (!grid.isConnected || at >= steps) stop(); else go(at + 1); }, Math.max(80, Math.min(500, 8000 / (steps || 1))));
  }

  function stop() { clearInterval(timer); timer = null; play.textContent = "Play"; }

  details.append(h("p", { class: "tl-hint" }, "Point at a token or at a picture, or move with the arrow keys, to read how long it stays."));
  choose();
};
