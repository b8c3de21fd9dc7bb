// A tree as nested lists: the root on top, its parts below, joined by lines.
TL.views.Tree = (root, value) => {
  const { h } = TL;
  const node = (item) => h("li", {}, h("span", { class: "tl-node" }, h("code", {}, TL.visible(item.text)), item.note ? h("small", {}, item.note) : null), item.children.length ? h("ul", {}, item.children.map(node)) : null);
  const body = TL.frame(root, value);
  body.append(h("div", { class: "tl-scroll", tabindex: "0", role: "region", "aria-label": value.alt }, h("ul", { class: "tl-tree" }, node(value.root))));
};
