// Something that the run has made: what it is, and the file to take away.
TL.views.Made = (root, value) => {
  const body = TL.frame(root, value);
  const type = value.filename.endsWith(".json") ? "application/json" : "text/plain";
  const joins = value.control ? " It is now in the list above, and can be compared like any other." : "";
  body.append(TL.h("p", {}, TL.h("b", {}, value.label), joins), TL.button(`Download ${value.filename}`, () => TL.download(value.filename, value.content, type)));
};
