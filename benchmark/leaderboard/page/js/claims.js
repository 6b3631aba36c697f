// The papers' claims, as far as they were tried here.

sections.claims = (page) => {
  const { data, el } = page;
  const KINDS = { supported: "done", contradicted: "failed", undecided: "skipped", "not run": "waiting" };
  const SIGNS = { supported: "✓", contradicted: "✕", undecided: "?", "not run": "…" };
  const digits = (value) => `${value > 0 ? "+" : ""}${value.toFixed(2)}`.replace("-", "−");
  const state = (verdict, text = verdict) => el("span", { class: `state ${KINDS[verdict]}` }, el("b", { "aria-hidden": "true" }, SIGNS[verdict]), ` ${text}`);
  const interval = (row) => (row.low === null ? null : `${digits(row.low)} to ${digits(row.high)}`);
  const place = (row) => [row.network, row.data, row.protocol].filter(Boolean);
  const goal = (row) => (row.within ? `within ± ${row.matters}` : `${row.matters} would matter`);

  document.getElementById("claims-summary").replaceChildren(
    el("ul", { class: "keys" }, data.verdicts.map((verdict, index) => data.counts[index]
      ? el("li", {}, state(verdict, `${data.counts[index].toLocaleString("en")} ${verdict}`)) : null)));

  page.table(document.getElementById("claims-place"), {
    name: "claims",
    title: "The papers' claims, tried here",
    caption: "Verdicts on the papers' claims, in groups of one claim, a row for each scale it was tried at",
    rows: data.rows,
    columns: [
      {
        name: "verdict", label: "Verdict",
        text: (row) => row.verdict,
        order: (row) => data.verdicts.indexOf(row.verdict),
        cell: (row) => el("div", { class: "verdict" }, state(row.verdict), row.remark ? el("small", {}, row.remark) : null,
          el("bdi", { class: "narrow" }, place(row).join(", "))),
        fields: (row) => [["Verdict", row.verdict], ["Remark", row.remark]],
      },
      {
        name: "found", label: "Here", number: true,
        order: (row) => row.found,
        text: (row) => `${digits(row.found)}${row.low === null ? "" : ` (${interval(row)})`}`,
        cell: (row) => el("span", {}, digits(row.found), el("small", {}, interval(row) ?? "no interval")),
        fields: (row) => [["Here", row.found], ["low", row.low ?? ""], ["high", row.high ?? ""], ["sd", row.sd ?? ""], ["Pairs", row.n]],
      },
      {
        name: "published", label: "Paper", number: true,
        order: (row) => row.published ?? -1e9,
        text: (row) => (row.published === null ? "–" : digits(row.published)),
        cell: (row) => el("span", {}, row.published === null ? "–" : digits(row.published), el("small", {}, goal(row))),
        fields: (row) => [["Paper", row.published ?? ""], ["Matters", row.matters], ["Unit", row.unit]],
      },
      {
        name: "scale", label: "Tried with", wide: true, text: (row) => [...place(row), row.sides].join(", "),
        cell: (row) => el("div", { class: "experiment" }, el("bdi", {}, place(row).join(", ")),
          el("small", { dir: "auto" }, row.training), el("small", { dir: "auto" }, `${row.sides ? `${row.sides}; ` : ""}${row.seeds}`)),
        fields: (row) => [["Network", row.network], ["Data set", row.data], ["Protocol", row.protocol], ["Training", row.training], ["Sides", row.sides], ["Seeds", row.seeds]],
      },
    ],
    facets: [
      { name: "verdict", label: "Verdict" }, { name: "paper", label: "Paper" },
      { name: "data", label: "Data set" }, { name: "network", label: "Network" }, { name: "protocol", label: "Protocol" },
    ],
    group: {
      of: (row) => row.claim,
      label: (row) => `${row.claim} (${row.source})`,
      head: (row) => [
        el("strong", { class: "sentence" }, row.claim),
        el("span", { class: "fact" }, `${row.source}${row.unit && row.unit !== "points" ? `, ${row.unit}` : ""}`),
        row.note ? el("span", { class: "fact sentence" }, row.note) : null,
      ],
    },
    notes: [data.summary],
  });

  const missing = document.getElementById("claims-missing");
  missing.hidden = data.missing.length === 0;
  missing.replaceChildren(
    el("summary", {}, `Claims that were not tried here, and why: ${data.missing.reduce((sum, one) => sum + one.claims.length, 0)}`),
    el("ul", { class: "reasons" }, data.missing.map((one) => el("li", {},
      el("p", {}, el("bdi", {}, one.reason)), el("ul", {}, one.claims.map((claim) => el("li", {}, claim)))))));
};
