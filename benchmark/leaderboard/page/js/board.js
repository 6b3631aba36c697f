// Shared by the boards: numbers with their details, labels and groups.

const board = (() => {
  const SOURCES = {
    measured: "measured here, by a job of this folder",
    verified: "sent in; scored again here from its predictions",
    "self-reported": "sent in; nothing here confirms it, so it is not ranked",
    reported: "printed in a paper; not measured here, not ranked",
  };
  const badge = (source) => el("span", { class: `badge ${source}`, title: SOURCES[source] ?? null }, source);

  // Cells are lists; `names` gives the order of their fields.
  function unpackCells(rows, names) {
    const cell = (list) => {
      if (list === null) return { kind: "absent", reason: "not in any suite that ran here" };
      if (list.length === 2) return { kind: list[0], reason: list[1] || list[0] };
      return { kind: "number", ...Object.fromEntries(list.map((value, index) => [names[index], value])) };
    };
    return rows.map((row) => ({ ...row, cells: row.cells.map(cell) }));
  }

  const fixed = (value) => value.toFixed(2).replace("-", "−");

  function story(cell, images) {
    if (cell.kind !== "number") return cell.reason;
    if (cell.method) return storyOfMethod(cell);
    const interval = cell.low !== undefined && cell.low !== null ? `${fixed(cell.low)} to ${fixed(cell.high)}` : null;
    return [
      `${fixed(cell.value)} %`,
      cell.marks.includes("§") && "zero-shot: not trained at this precision",
      cell.seeds > 1 && `${cell.seeds} seeds, standard deviation ${cell.sd}`,
      cell.seeds === 1 && "one seed, spread over seeds unknown",
      interval && `95 % interval ${cell.marks.includes("†") ? "over test images" : "of the mean"} ${interval}`,
      cell.warning,
      images?.length === 1 && `${images[0].toLocaleString("en")} test images`,
      cell.error && `standard error over test images ${fixed(cell.error)}`,
      cell.jobs && `${cell.jobs} jobs share these seeds and were averaged first`,
      cell.checked,
      cell.rounding && `rounding alone decides ${fixed(cell.rounding)} % of the predictions (float32 against float64)`,
      cell.missing && `${cell.missing} more job(s) gave no number`,
    ].filter(Boolean).join("; ");
  }

  function storyOfMethod(cell) {
    const known = cell.low !== undefined && cell.low !== null && cell.seeds > 1;
    return [
      `${fixed(cell.value)} %`,
      cell.seeds > 1 ? `${cell.seeds} pretrainings, standard deviation ${cell.sd}` : "one pretraining: what this file scores, spread over pretrainings unknown",
      known && `95 % interval over pretrainings ${fixed(cell.low)} to ${fixed(cell.high)}`,
      cell.scorings && `${cell.scorings} scoring seed${cell.scorings > 1 ? "s" : ""} each`,
      cell.scoring_sd && `standard deviation over them ${fixed(cell.scoring_sd)}`,
      cell.error && `standard error over test images ${fixed(cell.error)}`,
    ].filter(Boolean).join("; ");
  }

  const rankOf = (cell) => (cell.best || cell.rank > 1 ? cell.rank : 0);

  function drawn(cell, element, images) {
    element.classList.add(cell.kind);
    element.classList.toggle("best", Boolean(cell.best));
    element.classList.toggle("file", Boolean(cell.best && !cell.method));
    element.classList.toggle("alone", Boolean(cell.method && cell.seeds === 1));
    element.title = story(cell, images);
    if (cell.kind !== "number") return el("span", {}, cell.kind === "absent" ? "–" : cell.kind);
    const known = cell.low !== undefined && cell.low !== null;
    const rank = rankOf(cell);
    return el("div", { class: "cell" },
      el("span", { class: "value" }, cell.text),
      cell.sd ? el("span", { class: "sd" }, `±\u202f${cell.sd}`) : null,
      cell.marks ? el("sup", {}, cell.marks) : null,
      rank ? el("span", { class: "rank" }, el("span", { class: "aside" }, ", rank "), rank) : null,
      el("small", { class: "interval" }, known ? `[${cell.low.toFixed(1)}, ${cell.high.toFixed(1)}]` : "–"),
      cell.drop ? el("small", { class: "drop" }, el("span", { class: "aside" }, ", against full precision "), cell.drop) : null);
  }

  const text = (cell) => {
    if (cell.kind !== "number") return cell.kind === "absent" ? "–" : cell.kind;
    return cell.text + (cell.sd ? ` ± ${cell.sd}` : "") + cell.marks;
  };

  // A column of numbers; `groups` holds the number of test images.
  const numbers = (label, index, groups = {}) => ({
    name: label,
    label,
    number: true,
    cell: (row, element) => drawn(row.cells[index], element, groups[row.group]?.images),
    order: (row) => row.cells[index].value ?? -1e9,
    text: (row) => text(row.cells[index]),
    mark: (row) => ({ bold: Boolean(row.cells[index].best && row.cells[index].method), italic: Boolean(row.cells[index].best && !row.cells[index].method), rank: rankOf(row.cells[index]) }),
    fields: (row) => {
      const { kind, value, sd, low, high, seeds, rank } = row.cells[index];
      const status = kind === "number" ? value : kind === "absent" ? "" : kind;
      return [[label, status], [`${label} sd`, sd], [`${label} low`, low], [`${label} high`, high], [`${label} seeds`, seeds || ""], [`${label} rank`, rank || ""]];
    },
  });

  const seeds = {
    name: "seeds",
    label: "Seeds",
    number: true,
    text(row) {
      const found = [...new Set(row.cells.map((cell) => cell.seeds).filter(Boolean))].sort((a, b) => a - b);
      return found.length > 1 ? `${found[0]}–${found.at(-1)}` : String(found[0] ?? 0);
    },
    order: (row) => Math.max(0, ...row.cells.map((cell) => cell.seeds ?? 0)),
    cell(row) { return el("span", {}, this.text(row)); },
  };

  // The checkpoint's name, a box that adds it to the curves, and what has no column on phones.
  const checkpoint = (page, more) => ({
    name: "checkpoint",
    label: "Checkpoint",
    cell: (row) => el("div", { class: "who" },
      el("input", {
        type: "checkbox",
        "aria-label": `Choose ${row.checkpoint}`,
        title: "Show it in the curves",
        change: (event) => choose(page.state, row.checkpoint, event.target.checked),
      }),
      el("div", {},
        el("a", { class: "to", href: "#checkpoints", click: () => page.state.set("checkpoints.name", row.checkpoint) },
          page.name(row.checkpoint)),
        row.source === "measured" ? null : badge(row.source),
        el("bdi", { class: "narrow" }, more(row)))),
  });

  // Marks the chosen rows of a table.
  const choices = ({ state }) => {
    const chosen = (row) => state.list("checkpoint").includes(row.checkpoint);
    return {
      chosen,
      dress(row, element) {
        element.classList.toggle("chosen", chosen(row));
        element.querySelector("input").checked = chosen(row);
      },
    };
  };

  function choose(state, checkpoint, chosen) {
    const others = state.list("checkpoint").filter((name) => name !== checkpoint);
    state.set("checkpoint", chosen ? [...others, checkpoint] : others);
  }

  const policy = {
    name: "policy",
    label: "Policy",
    text: (row) => (row.policy === "-" ? "–" : `${row.policy} ${row.policy_fingerprint}`),
    cell: (row) => (row.policy === "-" ? el("span", { class: "absent" }, "–")
      : el("span", {}, el("bdi", {}, row.policy), " ", el("code", {}, row.policy_fingerprint))),
  };
  const source = { name: "source", label: "Source", wide: true, cell: (row) => badge(row.source) };

  const groupLink = (letter) => el("a", { class: "letter", href: `#group-${letter}`, title: "What the rows of this group share" }, letter);

  // The columns that identify a row; the training only where rows differ in it.
  const subject = (page, rows) => [
    checkpoint(page, (row) => row.method),
    { name: "method", label: "Method", wide: true },
    { name: "architecture", label: "Architecture", wide: true },
    ...(rows.some((row) => row.training !== "-") ? [{ name: "training", label: "Training" }] : []),
  ];

  return { unpackCells, numbers, seeds, checkpoint, subject, choices, policy, source, badge, groupLink };
})();

// Accuracy: one row per checkpoint, one column per precision; data sets and protocols are groups.

sections.classification = (page) => {
  const { data, el, name } = page;
  const rows = board.unpackCells(data.rows, data.cell);
  const several = (column) => new Set(rows.map((row) => row[column])).size > 1;
  const label = (row) => `${row.dataset}, ${row.protocol}${several("metric") ? `, ${row.metric}` : ""} (group ${row.group})`;
  const head = (row) => {
    const facts = data.groups[row.group];
    const images = facts.images.map((n) => n.toLocaleString("en")).join(" or ");
    return [
      board.groupLink(row.group), el("strong", {}, name(row.dataset)), name(row.protocol),
      el("span", { class: "fact" }, row.metric),
      el("span", { class: "fact wide" }, images ? `${images} test images` : "", ` at ${facts.image_size} px`),
      facts.board_policy === "-" ? null : el("span", { class: "fact wide" }, "policy ", name(row.policy)),
      row.engine === "torch" ? null : el("span", { class: "fact wide" }, "engine ", name(row.engine)),
    ];
  };
  page.table(document.getElementById("classification-place"), {
    name: "classification",
    title: "Classification accuracy (%)",
    caption: "Classification accuracy by checkpoint, one column per precision, in groups of one data set and protocol",
    rows,
    columns: [
      ...board.subject(page, rows),
      ...data.columns.map((precision, index) => board.numbers(precision, index, data.groups)),
      board.seeds,
      ...(several("source") ? [board.source] : []),
    ],
    facets: [
      { name: "dataset", label: "Data set" }, { name: "protocol", label: "Protocol" },
      { name: "metric", label: "Metric" }, { name: "method", label: "Method" },
      { name: "architecture", label: "Architecture" }, { name: "training", label: "Training" },
      { name: "policy", label: "Policy" }, { name: "engine", label: "Engine" }, { name: "source", label: "Source" },
    ],
    group: { of: (row) => `${row.group} ${row.metric}`, label, head },
    ...board.choices(page),
    notes: ["Mean over seeds ± standard deviation; † a single seed. Raised: the rank in its group, of checkpoints: one pretraining, one file each. Italic: none is found better. ≈ rounding alone decides at least 1 % of these predictions."],
  });
};

// Average precision: one row per detector, one column per metric; ranked within a group and precision.

sections.detection = (page) => {
  const { data, el, name } = page;
  const rows = board.unpackCells(data.rows, data.cell);
  const several = (column) => new Set(rows.map((row) => row[column])).size > 1;
  const label = (row) => `${row.dataset}, ${row.protocol}, ${row.engine}, ${row.precision} (group ${row.group})`;
  const head = (row) => {
    const facts = data.groups[row.group];
    const images = facts.images.map((n) => n.toLocaleString("en")).join(" or ");
    return [
      board.groupLink(row.group), el("strong", {}, name(row.dataset)), name(row.protocol),
      el("strong", {}, name(row.precision)),
      el("span", { class: "fact" }, "engine ", name(row.engine)),
      el("span", { class: "fact wide" }, images ? `${images} test images` : "", ` at ${facts.image_size} px`),
    ];
  };
  page.table(document.getElementById("detection-place"), {
    name: "detection",
    title: "Detection, average precision (%)",
    caption: "Average precision by checkpoint and way of training, in groups of one data set, detector, engine and precision",
    rows,
    columns: [
      ...board.subject(page, rows),
      ...data.columns.map((metric, index) => board.numbers(metric, index, data.groups)),
      board.seeds,
      board.policy,
      ...(several("source") ? [board.source] : []),
    ],
    facets: [
      { name: "dataset", label: "Data set" }, { name: "protocol", label: "Detector" },
      { name: "precision", label: "Precision" }, { name: "training", label: "Training" },
      { name: "method", label: "Method" }, { name: "architecture", label: "Architecture" },
      { name: "policy", label: "Policy" }, { name: "engine", label: "Engine" }, { name: "source", label: "Source" },
    ],
    group: { of: (row) => `${row.group} ${row.precision}`, label, head },
    ...board.choices(page),
    notes: ["Mean over seeds ± standard deviation; † a single seed. Raised: the rank in its group, of checkpoints: one pretraining, one file each. Italic: none is found better. ≈ rounding alone decides at least 1 % of these predictions."],
  });
};
