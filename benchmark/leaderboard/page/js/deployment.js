// Integer inference: one row per network and precision, one group per runtime and machine; and the accuracies of
// a group against what was counted and what was measured.

sections.deployment = (page) => {
  const { data, el, name, state } = page;
  const rows = board.unpackCells(data.rows, data.cell);
  const of = (row) => data.tables[row.table];
  const timing = (label) => data.timings.find((one) => one.column === label);
  const trained = rows.some((row) => row.training !== "-");  // detectors are
  const duration = (row, fact) => (row[fact] ? `${scaled(row[fact] / 1e3)}s` : "time unknown");

  // A header in two lines: "size (MB)", "integer layers", "latency b1, 1 thread (× FP)".
  function head(label) {
    const [, first, second] = /^(integer|latency b\d+|[^(]*),? (.*)$/.exec(label);
    return el("span", { class: "stacked" }, first[0].toUpperCase() + first.slice(1), el("small", {}, second.replace(/[()]/g, "")));
  }

  function score(label, index) {
    return { ...board.numbers(label, index), head: () => head(label) };
  }

  function cost(label, index) {
    const timed = timing(label);
    const cell = (row) => row.cells[index];
    const known = (row) => cell(row).kind === "number";
    return {
      name: label, label, number: true, head: () => head(label),
      order: (row) => cell(row).value ?? -1e9,
      text: (row) => (known(row) ? cell(row).text : "–"),
      cell(row, element) {
        const [value, interval] = this.text(row).split(/ (?=\[)/);
        if (timed && known(row)) element.title = `${value} of full precision, quartiles over the rounds ${interval ?? "unknown"}; about ${duration(row, timed.fact)}`;
        return el("div", {}, el("span", { class: "value" }, value), interval ? el("small", {}, interval) : null);
      },
      fields: (row) => {
        const { value, low, high } = cell(row);
        return [[label, value], ...(timed ? [[`${label} low`, low], [`${label} high`, high]] : [])];
      },
    };
  }

  page.table(document.getElementById("deployment-place"), {
    name: "deployment",
    title: "Integer inference",
    caption: "Size, latency, integer layers, agreement and accuracy of exported networks, in groups of one data set, runtime and machine",
    rows,
    columns: [
      board.checkpoint(page, (row) => row.policy),
      ...(new Set(rows.map((row) => row.architecture)).size > 1 ? [{ name: "architecture", label: "Architecture", wide: true }] : []),
      ...(trained ? [{ name: "training", label: "Trained by", wide: true }] : []),
      { name: "policy", label: "Policy", wide: true },
      { name: "precision", label: "Precision" },
      ...data.columns.map((label, index) => (data.scores.includes(label) ? score : cost)(label, index)),
    ],
    facets: [
      { name: "dataset", label: "Data set" }, { name: "protocol", label: "Protocol" },
      { name: "engine", label: "Runtime" }, { name: "processor", label: "Processor" },
      { name: "architecture", label: "Architecture" }, { name: "policy", label: "Policy" },
      { name: "precision", label: "Precision" },
    ],
    group: {
      of: (row) => `${row.table}`,
      label: (row) => of(row).title,
      head: (row) => [
        el("strong", {}, name(row.dataset)), name(row.protocol), row.image_size === "-" ? null : el("span", { class: "fact wide" }, `${row.image_size} px`), el("strong", {}, name(row.engine)),
        el("span", { class: "fact" }, "on ", name(row.processor)), el("span", { class: "fact" }, name(row.instruction_set)),
        el("span", { class: "fact" }, name(row.cores), row.cores === "1" ? " core" : " cores"),
        el("span", { class: row.products === "exact" ? "fact" : "failed" }, "8-bit products ", name(row.products)),
      ],
    },
    ...board.choices(page),
    notes: [data.note, ...new Set(data.tables.flatMap((table) => table.gaps))],
  });

  // Three costs side by side, each with its Pareto front.
  const SHOWN = 6;  // checkpoints shown until the reader chooses
  const menu = (key, options) => el("select", { name: key, change: (event) => state.set(`fronts.${key}`, event.target.value) },
    options.map(([value, text], index) => el("option", { value: index ? value : "" }, text)));
  const which = menu("table", data.tables.map(({ dataset, protocol, engine, processor }, index) => [index, [dataset, protocol, engine, processor].join(" · ")]));
  const timed = menu("latency", data.timings.map(({ fact, batch, threads }) => [fact, `batch ${batch}, ${threads}`]));
  const stored = menu("bytes", [["file_bytes", "the file that ran"], ["packed_bytes", "the file, packed"]]);
  const charts = ["operations", "latency", "bytes"].map((what) => el("div", { class: "chart", role: "img", "data-cost": what }));
  const legend = el("ul", { class: "legend", "aria-label": "Lines shown" });
  const said = el("p", { class: "fine", role: "status" });
  document.getElementById("fronts-place").replaceChildren(
    el("div", { class: "toolbar" },
      el("label", { hidden: data.tables.length < 2 }, el("span", {}, "Measured on"), which),
      el("label", {}, el("span", {}, "Latency of"), timed),
      el("label", {}, el("span", {}, "Bytes of"), stored)),
    el("div", { class: "fronts" }, charts), legend, said);
  state.subscribe((key) => {
    if (key === null || key === "checkpoint" || key.startsWith("fronts.")) draw();
  });
  draw();

  function draw() {
    for (const one of [which, timed, stored]) {
      one.value = state.get(`fronts.${one.name}`);
      if (one.selectedIndex < 0) one.selectedIndex = 0;  // a link to what no longer exists
    }
    const ours = rows.filter((row) => row.table === which.selectedIndex);
    const names = [...new Set(ours.map((row) => row.checkpoint))];
    const chosen = names.filter((one) => state.list("checkpoint").includes(one));
    const networks = Map.groupBy(
      ours.filter((row) => (chosen.length ? chosen : names.slice(0, SHOWN)).includes(row.checkpoint)),
      (row) => [row.checkpoint, row.architecture, row.training, row.policy, row.policy_fingerprint].join("\n"));
    const [time, size] = [data.timings[timed.selectedIndex].fact, stored.value || "file_bytes"];
    const costs = {
      operations: { title: "Bit-operations of one image, counted", unit: "", of: (row) => row.bit_operations },
      latency: { title: `Latency, ${timed.selectedOptions[0].text}, measured`, unit: "s", of: (row) => row[time] / 1e3 },
      bytes: { title: `Bytes of ${stored.selectedOptions[0].text}, measured`, unit: "B", of: (row) => row[size] },
    };
    const first = data.scores.find((column) => ours.some((row) => row.cells[data.columns.indexOf(column)].kind === "number"));
    for (const chart of charts) drawCost(chart, [...networks.values()], costs[chart.dataset.cost], first);
    legend.replaceChildren(...[...networks.values()].map(([row]) => el("li", { style: `--line: ${look(row).colour}`, "data-dash": look(row).dash }, name(label(row)))));
    const few = chosen.length || names.length <= SHOWN ? "" : `The first ${SHOWN} of ${names.length} checkpoints; choose others by the boxes in the table. `;
    said.textContent = few + (charts.some((chart) => chart.hidden) ? "A cost that no result here has is left out." : "");
  }

  // A checkpoint has its colour from elsewhere on the page, unless several policies or trainings of it are shown.
  function label(row) {
    const own = rows.filter((one) => one.table === row.table && one.checkpoint === row.checkpoint);
    const differing = ["training", "policy"].filter((fact) => new Set(own.map((one) => one[fact])).size > 1);
    return [row.checkpoint, ...new Set(differing.map((fact) => row[fact]).filter((text) => text !== "-"))].join(", ");
  }

  function look(row) {
    return page.colour(label(row));
  }

  function drawCost(chart, networks, cost, score) {
    const lines = networks.map((ours) => ({ label: label(ours[0]), look: look(ours[0]), points: ours.map((row) => point(row, cost)).filter(Boolean) }));
    chart.hidden = !lines.some((line) => line.points.length);
    if (chart.hidden) return;
    page.plot(chart, fronts.traces(lines), {
      hovermode: "closest",
      hoverdistance: 30,
      xaxis: fronts.axis(lines, cost.title, cost.unit, Math.min(innerWidth, 1400) / (innerWidth < 1024 ? 1 : 3)),
      yaxis: { title: { text: score ?? "", standoff: 12 } },
    });
    chart.setAttribute("aria-label", `${score} by ${cost.title}: ${lines.length} lines. The table above has the numbers.`);
  }

  function point(row, cost) {
    const cell = data.scores.map((column) => row.cells[data.columns.indexOf(column)]).find((one) => one.kind === "number");
    const x = cost.of(row);
    if (!cell || !x) return null;
    const known = cell.low !== undefined && cell.low !== null;
    const text = [
      `<b>${page.plain(label(row))}</b>, ${row.precision}`,
      `${cell.value.toFixed(1)} %${known ? ` (${cell.low.toFixed(1)} to ${cell.high.toFixed(1)})` : ""}`,
      `${row.bit_operations ? `${scaled(row.bit_operations)} bit-operations, ` : ""}${scaled(row.file_bytes)}B, packed ${scaled(row.packed_bytes)}B`,
      ...data.timings.map(({ fact, batch, threads }) => `batch ${batch}, ${threads}: ${duration(row, fact)}`),
    ].join("<br>");
    return { x, y: cell.value, low: cell.low ?? null, high: cell.high ?? null, precision: row.precision, text };
  }
};
