// Unpacks the data, draws the sections, then shows what the address asks for.

const data = JSON.parse(await unpack("data"));
const { default: DataTable } = await import(URL.createObjectURL(
  new Blob([await unpack("datatables")], { type: "text/javascript" })));
const frame = {
  overview: data.overview, state, el, name, css, plain, plot, download, copy,
  colour: palette(data.overview.checkpoints),
};
frame.table = (element, spec) => table(DataTable, frame, element, spec);
masthead(frame);
for (const [id, content] of Object.entries(data.sections)) sections[id]?.({ ...frame, data: content });
document.documentElement.dataset.ready = "true";
state.go();
