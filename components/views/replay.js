// A strip whose cuts change step by step, under a slider.
TL.views.Replay = (root, value) => {
  const { h } = TL;
  const last = value.steps.length - 1;
  const cut = new Uint8Array(value.units.length + 1).fill(1);
  const byStep = value.steps.map(() => []);
  for (const [step, unit, on] of value.events) byStep[step].push([unit, on]);
  const before = [];
  let at = 0, timer = null;

  const slider = h("input", { type: "range", min: "0", max: String(last), value: "0", "aria-label": "Step", oninput: () => go(Number(slider.value)) });
  const label = h("output", { class: "tl-step" });
  const play = TL.button("Play", () => (timer ? stop() : start()));
  const strip = h("div", { class: "tl-strip tl-replay", role: "img", "aria-label": value.alt });
  const count = h("p", { class: "tl-facts" });
  TL.frame(root, value, play).append(h("div", { class: "tl-slider" }, slider, label), strip, count);

  const units = value.units.map((unit, i) => {
    const name = TL.invisibleName(unit);
    // An empty unit is a further byte of the character before it: a sliver, so that its merges can be seen too.
    const node = h("span", {}, unit === "" ? "" : name === null ? unit : name === "·" ? "\u00a0" : name);
    if (unit.includes("\n")) return [node, h("br")];
    return [node];
  });
  strip.append(...units.flat());

  const apply = (step) => {
    const changes = [];
    for (const [unit, on] of byStep[step]) { changes.push([unit, cut[unit]]); cut[unit] = on; }
    before[step] = changes;
  };
  const undo = (step) => { for (const [unit, old] of before[step].reverse()) cut[unit] = old; };

  function go(target) {
    while (at < target) apply(++at);
    while (at > target) undo(at--);
    paint(byStep[target].map(([unit]) => unit));
  }

  function paint(changed) {
    let token = -1;
    units.forEach(([node], i) => {
      const starts = i === 0 || cut[i];
      if (starts) token++;
      node.className = `tl-unit ${value.units[i] === "" ? "part " : ""}${token % 2 ? "odd" : "even"}${starts ? " starts" : ""}`;
    });
    changed.forEach((unit) => [unit - 1, unit].forEach((i) => units[i] && units[i][0].classList.add("changed")));
    slider.value = String(at);
    slider.setAttribute("aria-valuetext", value.steps[at]);
    label.textContent = TL.visibleInTable(value.steps[at]);
    count.textContent = `${(token + 1).toLocaleString("en-US")} tokens after step ${at} of ${last}`;
    root.dataset.tokens = String(token + 1);
  }

  function start() {
    if (at === last) go(0);
    play.textContent = "Pause";
    const pace = Math.max(40, Math.min(400, 8000 / (last || 1)));
    timer = setInterval(() => { if (!strip.isConnected || at >= last) stop(); else go(at + 1); }, pace);
  }

  function stop() { clearInterval(timer); timer = null; play.textContent = "Play"; }

  apply(0);
  go(last);
};
